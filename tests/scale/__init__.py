"""Several processes, Ray and a PostgreSQL server: `make test-scale`."""
