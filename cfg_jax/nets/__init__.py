"""Networks, and the published weights that fit them."""
