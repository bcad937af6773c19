"""The handlers, one module each for what they are about. Importing one puts its routes into the table."""
