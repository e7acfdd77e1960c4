"""The outputs of the library, each under a readable name, for comparison with a record of them."""
