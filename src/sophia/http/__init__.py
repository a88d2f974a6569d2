"""Wire formats and frameworks stop here."""
