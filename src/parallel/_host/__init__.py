"""The programs of a host: keeper, fork server, worker. They are started, never imported."""
