"""`python -m sophia` is the command `sophia`."""

from sophia.cli.main import app

if __name__ == "__main__":
    app()
