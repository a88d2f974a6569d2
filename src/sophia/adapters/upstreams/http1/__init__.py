"""An HTTP/1.1 client: a pool of keep-alive connections to one origin."""
