"""Features without labels, then a classifier on the labels of a few: scikit-learn's way of putting it together."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evensphere import Encoder

loaded = load_digits()
images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)  # N x height x width
train_images, test_images, train_labels, test_labels = train_test_split(
    images, loaded.target, test_size=0.7, stratify=loaded.target, random_state=0
)

encoder = Encoder("digits-lt", epochs=5, random_state=0)
encoder.fit(train_images)
features = encoder.transform(test_images)  # N x D, float32

model = make_pipeline(encoder, StandardScaler(), LogisticRegression(max_iter=1000))
search = GridSearchCV(model, {"encoder__method": ["simclr", "vicreg"]}, cv=2)
search.fit(train_images, train_labels)
score = search.score(test_images, test_labels)
print(f"{100 * score:.1f} % right with {search.best_params_}")
