"""What the project knows of providers: where they are, how they speak, which models they serve and at what price.

Strategy: facts are JSON beside this file, one table a file, with their sources; the loader joins them by
(provider, currency, upstream model) and checks nothing that the tests of the catalogue check.
"""

from nexus_proxy.catalogue.loader import Catalogue, Listing, Provider, load_catalogue

__all__ = ["Catalogue", "Listing", "Provider", "load_catalogue"]
