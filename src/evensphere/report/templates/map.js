"use strict";
// The map of the images: dots on a canvas, an image where the pointer is, lists of what a line is drawn around. Names
// come from anywhere and are only ever put into the page as text.
(() => {
  const maps = JSON.parse(document.getElementById("maps").textContent);
  const at = (id) => document.getElementById("map-" + id);
  const root = document.getElementById("image-map");
  const canvas = at("canvas"), pen = canvas.getContext("2d"), hover = at("hover"), key = at("key"), list = at("names");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const SCALE = 9999, MARGIN = 16, NEAR = 14, NEIGHBOURS = 20, LISTED = 500;
  root.hidden = false;

  let map, colouring, colours; // what is drawn
  let view = { zoom: 1, x: 0.5, y: 0.5 }; // the point of the map in the middle, and how large it is
  let current = -1, selected = [], kind = -1; // the image in focus, those listed, the colour they were listed by
  let drag = null; // while the pointer is down

  // --- places ---------------------------------------------------------------------------------------------------

  let width = 0, height = 0; // of the canvas: asking it would cost more than all the rest
  const measure = () => { [width, height] = [canvas.clientWidth, canvas.clientHeight]; };
  const side = () => Math.min(width, height) - 2 * MARGIN;
  const toScreen = (i) => [
    width / 2 + (map.x[i] / SCALE - view.x) * side() * view.zoom,
    height / 2 - (map.y[i] / SCALE - view.y) * side() * view.zoom,
  ];
  const each = (visit) => { for (let i = 0; i < map.names.length; i++) visit(i); };

  function nearest(x, y, most = Infinity) {
    let best = -1, least = most * most;
    each((i) => {
      const [a, b] = toScreen(i), distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  }

  function inside(x, y, line) {
    let odd = false;
    for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
      const [a, b] = line[i], [c, d] = line[j];
      if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) odd = !odd;
    }
    return odd;
  }

  // --- drawing --------------------------------------------------------------------------------------------------

  // light and dark: from orange, the sparsest, over what is hardly a colour to a quiet blue
  const STOPS = [[[200, 80, 0], [196, 180, 160], [96, 136, 180]], [[255, 150, 60], [150, 140, 130], [80, 120, 165]]];
  const GROUPS = { many: "#D55E00", medium: "#009E73", few: "#0072B2" };
  function colourOf(n, count, name) {
    if (colouring.kind === "groups") return dark.matches && name === "few" ? "#56B4E9" : GROUPS[name];
    if (colouring.kind === "scale") {
      const t = (2 * n) / Math.max(1, count - 1), [from, to] = t < 1 ? [0, 1] : [1, 2], stops = STOPS[dark.matches ? 1 : 0];
      return `rgb(${stops[from].map((one, i) => Math.round(one + (t - from) * (stops[to][i] - one)))})`;
    }
    return `hsl(${(n * 137.508) % 360} 62% ${dark.matches ? 50 + 16 * (n % 2) : 36 + 12 * (n % 2)}%)`;
  }

  // The dots are drawn aside, and again only when they have changed; what follows the pointer is drawn over them.
  const dots = document.createElement("canvas"), dotPen = dots.getContext("2d");
  let asked = 0, stale = true;
  const dotSize = () => Math.max(1.2, Math.min(4, 120 / Math.sqrt(map.names.length))) * Math.min(2, Math.sqrt(view.zoom));

  function draw(changed = true) {
    stale = stale || changed;
    asked = asked || requestAnimationFrame(drawNow);
  }

  function drawDots() {
    const size = dotSize(), chosen = new Set(selected);
    dotPen.clearRect(0, 0, width, height);
    for (let i = map.names.length - 1; i >= 0; i--) { // the sparsest last, so that they lie on top
      const [x, y] = toScreen(i);
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
      dotPen.globalAlpha = chosen.size && !chosen.has(i) ? 0.16 : 0.85;
      dotPen.fillStyle = colours[colouring.of[i]];
      dotPen.beginPath();
      dotPen.arc(x, y, size, 0, 7);
      dotPen.fill();
    }
    stale = false;
  }

  function drawNow() {
    asked = 0;
    const ratio = devicePixelRatio || 1, [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) {
      for (const one of [canvas, dots]) [one.width, one.height] = [w, h];
      for (const one of [pen, dotPen]) one.setTransform(ratio, 0, 0, ratio, 0, 0);
      stale = true;
    }
    if (!w || !h) return;
    if (stale) drawDots();
    pen.clearRect(0, 0, width, height);
    pen.drawImage(dots, 0, 0, width, height);
    pen.strokeStyle = getComputedStyle(canvas).color;
    if (current >= 0) {
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(...toScreen(current), dotSize() + 4, 0, 7);
      pen.stroke();
    }
    if (drag && drag.line.length > 1) {
      pen.lineWidth = 1.5;
      pen.beginPath();
      drag.line.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
      pen.stroke();
    }
  }

  // --- one image ------------------------------------------------------------------------------------------------

  const nameOf = (i) => map.start + map.names[i];
  const wordsOf = (i) => map.colourings.map((one) => `${one.by}: ${one.names[one.of[i]]}`);

  function picture(image, i) {
    if (map.pictures[i] === undefined) return image.removeAttribute("src");
    image.onload = () => image.classList.toggle("small", image.naturalWidth < 49);
    image.src = "data:image/webp;base64," + map.pictures[i];
  }

  function show(i, aloud = false) {
    current = i;
    hover.hidden = i < 0;
    if (i >= 0) {
      picture(hover.firstElementChild, i);
      const none = map.pictures[i] === undefined ? ["(no picture kept)"] : [];
      hover.lastElementChild.textContent = [map.names[i], ...wordsOf(i), ...none].join("\n");
      const [x, y] = toScreen(i);
      hover.style.left = (x > width / 2 ? Math.max(0, x - hover.offsetWidth - 12) : Math.min(x + 12, width - hover.offsetWidth)) + "px";
      hover.style.top = Math.max(0, Math.min(y + 12, height - hover.offsetHeight)) + "px";
      if (aloud) at("says").textContent = [nameOf(i), ...wordsOf(i)].join(", ");
    }
    draw(false);
  }

  // --- many images ----------------------------------------------------------------------------------------------

  function select(images, by = -1) {
    [selected, kind] = [images, by];
    for (const [n, item] of [...key.children].entries()) item.firstElementChild.setAttribute("aria-pressed", n === by);
    const some = images.length > LISTED ? ` The first ${LISTED} are shown.` : "";
    const count = `${images.length.toLocaleString("en")} of ${map.names.length.toLocaleString("en")}.`;
    at("count").textContent = images.length ? count + some : "None.";
    at("save").disabled = at("clear").disabled = !images.length;
    list.replaceChildren(...images.slice(0, LISTED).map((i) => {
      const item = document.createElement("li"), name = document.createElement("span");
      if (map.pictures[i] !== undefined) {
        const image = item.appendChild(document.createElement("img"));
        image.alt = "";
        picture(image, i);
      }
      name.textContent = nameOf(i);
      item.append(name);
      return item;
    }));
    draw();
  }

  function save() {
    const link = document.createElement("a"), lines = selected.map(nameOf).join("\n") + "\n";
    link.href = URL.createObjectURL(new Blob([lines], { type: "text/plain" }));
    link.download = "images.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function colourBy(n) {
    colouring = map.colourings[n];
    const counts = new Array(colouring.names.length).fill(0);
    colouring.of.forEach((one) => counts[one]++);
    colours = colouring.names.map((name, one) => colourOf(one, colouring.names.length, name));
    key.replaceChildren(...colouring.names.map((name, one) => {
      const item = document.createElement("li"), button = item.appendChild(document.createElement("button"));
      const dot = button.appendChild(document.createElement("i"));
      button.type = "button";
      dot.style.setProperty("--dot", colours[one]);
      button.append(`${name} – ${counts[one].toLocaleString("en")}`);
      button.onclick = () => {
        const images = [];
        if (kind !== one) each((i) => { if (colouring.of[i] === one) images.push(i); });
        select(images, kind === one ? -1 : one);
      };
      return item;
    }));
    select([]);
  }

  function open(n) {
    map = maps[n];
    map.pictures = map.pictures || {};
    view = { zoom: 1, x: 0.5, y: 0.5 };
    const before = at("by").value;
    at("by").replaceChildren(...map.colourings.map((one) => new Option(one.by, one.by)));
    const same = map.colourings.findIndex((one) => one.by === before);
    at("by").selectedIndex = Math.max(0, same);
    colourBy(Math.max(0, same));
    show(-1);
  }

  // --- pointer --------------------------------------------------------------------------------------------------

  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const moves = () => document.querySelector('input[name="map-drag"]:checked').value === "move";

  canvas.onpointerdown = (event) => {
    drag = { line: [placeOf(event)], moves: moves() };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    const [x, y] = placeOf(event);
    if (!drag) return show(nearest(x, y, NEAR));
    const [a, b] = drag.line[drag.line.length - 1];
    if (drag.moves) {
      view.x -= (x - a) / side() / view.zoom;
      view.y += (y - b) / side() / view.zoom;
      drag.line = [[x, y]];
    } else {
      drag.line.push([x, y]);
    }
    hover.hidden = true;
    draw(drag.moves);
  };
  canvas.onpointerup = () => {
    const { line, moves } = drag || { line: [], moves: true };
    drag = null;
    if (moves) return draw();
    if (line.length < 3) { // a tap
      show(nearest(...line[0], NEAR), true);
      return select(current < 0 ? [] : [current]);
    }
    const images = [];
    each((i) => { if (inside(...toScreen(i), line)) images.push(i); });
    select(images);
  };
  canvas.onpointercancel = () => { drag = null; draw(false); };
  canvas.onpointerleave = () => { if (!drag) show(-1); };

  // --- keyboard -------------------------------------------------------------------------------------------------

  function zoom(factor) {
    view.zoom = Math.min(64, Math.max(1, view.zoom * factor));
    if (view.zoom === 1) [view.x, view.y] = [0.5, 0.5];
    else if (current >= 0) [view.x, view.y] = [map.x[current] / SCALE, map.y[current] / SCALE];
    stale = true;
    show(current);
  }

  function step(right, up) { // to the image that lies closest in that direction
    if (current < 0) return show(nearest(width / 2, height / 2), true);
    let best = -1, least = Infinity;
    each((i) => {
      const x = map.x[i] - map.x[current], y = map.y[i] - map.y[current];
      const ahead = x * right + y * up, aside = Math.abs(x * up) + Math.abs(y * right);
      if (i !== current && ahead > 0 && ahead >= aside && ahead + 2 * aside < least) [best, least] = [i, ahead + 2 * aside];
    });
    if (best < 0) return at("says").replaceChildren("No image lies further that way.");
    const [x, y] = toScreen(best);
    if (x < 0 || y < 0 || x > width || y > height) {
      [view.x, view.y] = [map.x[best] / SCALE, map.y[best] / SCALE];
      stale = true;
    }
    show(best, true);
  }

  function around() {
    const distance = (i) => (map.x[i] - map.x[current]) ** 2 + (map.y[i] - map.y[current]) ** 2;
    if (current >= 0) select([...map.names.keys()].sort((i, j) => distance(i) - distance(j)).slice(0, NEIGHBOURS));
  }

  const KEYS = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, 1), ArrowDown: () => step(0, -1),
    Enter: around, " ": around, "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(0.5), 0: () => zoom(0),
    Escape: () => { drag = null; select([]); show(-1); },
  };
  canvas.onkeydown = (event) => {
    if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    KEYS[event.key]();
  };
  canvas.onblur = () => show(-1);

  at("in").onclick = () => zoom(2);
  at("out").onclick = () => zoom(0.5);
  at("whole").onclick = () => zoom(0);
  at("clear").onclick = () => select([]);
  at("save").onclick = save;
  at("by").onchange = () => colourBy(at("by").selectedIndex);
  if (at("run")) at("run").onchange = () => open(at("run").selectedIndex);
  dark.addEventListener("change", () => {
    const kept = [selected, kind];
    colourBy(at("by").selectedIndex);
    select(...kept);
  });
  new ResizeObserver(() => { measure(); draw(); }).observe(canvas);
  measure();
  for (const image of document.querySelectorAll(".tiles img")) { // small images keep their pixels
    image.decode().then(() => image.classList.toggle("small", image.naturalWidth < 49), () => {});
  }
  open(0); // which the menu says too: autocomplete="off" keeps a browser from restoring another choice
})();
