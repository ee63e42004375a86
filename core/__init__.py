"""Pure numerics of Plumbline: no page and no figure is imported here."""
