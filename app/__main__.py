"""`python -m app` is `sottovoce`."""

from app.cli import main

if __name__ == "__main__":
    main()
