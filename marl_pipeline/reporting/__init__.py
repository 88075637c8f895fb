"""The report and its pictures, and other pages."""
