-- The tables that the packaged hotfixes are about, as they are before them: what `make run` and the tests start from.
-- A hotfix about another table needs that table here, with the columns it had.

CREATE TABLE drivers (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO drivers (id, name, email) VALUES
    ('f30bc0d9-e7e8-467c-801c-6cf0623d8f0f', 'Marina Lopes', 'marina@example.com'),
    ('0b8f9a54-6c1e-4f0e-9f64-2d7c1a0b3e55', 'Caio Prado', 'caio@example.com'),
    ('7d3c2f10-91ab-4c77-8e0d-5a4b6c7d8e9f', 'Rita Alves', 'rita@example.com');
