"""One module for each published data set; `registry` tells them apart and calls them."""
