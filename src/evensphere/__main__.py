"""`python -m evensphere` is `evensphere`, also where the command is not on the path."""

from evensphere.cli.main import main

if __name__ == "__main__":
    main()
