-- A database like Odoo's: tables, keys and habits, not its data. ":rows" is the
-- number of rows in account_move; the others follow from it.

CREATE TABLE res_users (
    id serial PRIMARY KEY,
    login varchar NOT NULL UNIQUE,
    password varchar,
    active boolean DEFAULT true,
    write_date timestamp
);

CREATE TABLE res_company (
    id serial PRIMARY KEY,
    name varchar NOT NULL UNIQUE,
    write_date timestamp
);

CREATE TABLE res_partner (
    id serial PRIMARY KEY,
    name varchar,
    email varchar,
    active boolean DEFAULT true,
    customer_rank integer DEFAULT 0,
    parent_id integer REFERENCES res_partner ON DELETE SET NULL,
    company_id integer REFERENCES res_company ON DELETE SET NULL,
    user_id integer REFERENCES res_users ON DELETE SET NULL,
    write_uid integer REFERENCES res_users ON DELETE SET NULL,
    write_date timestamp
);

CREATE TABLE product_product (
    id serial PRIMARY KEY,
    default_code varchar,
    active boolean DEFAULT true,
    list_price numeric
);

CREATE TABLE account_journal (
    id serial PRIMARY KEY,
    code varchar(5) NOT NULL,
    name jsonb NOT NULL
);

CREATE TABLE account_move (
    id serial PRIMARY KEY,
    name varchar,
    ref varchar,
    state varchar NOT NULL DEFAULT 'draft',
    move_type varchar NOT NULL DEFAULT 'entry',
    date date NOT NULL,
    journal_id integer NOT NULL REFERENCES account_journal ON DELETE RESTRICT,
    partner_id integer REFERENCES res_partner ON DELETE RESTRICT,
    company_id integer REFERENCES res_company ON DELETE SET NULL,
    amount_total numeric,
    payment_state varchar,
    narration text,
    create_uid integer REFERENCES res_users ON DELETE SET NULL,
    write_uid integer REFERENCES res_users ON DELETE SET NULL,
    write_date timestamp
);

CREATE TABLE account_move_line (
    id serial PRIMARY KEY,
    move_id integer NOT NULL REFERENCES account_move ON DELETE CASCADE,
    partner_id integer REFERENCES res_partner ON DELETE RESTRICT,
    name varchar,
    debit numeric NOT NULL DEFAULT 0,
    credit numeric NOT NULL DEFAULT 0,
    balance numeric,
    reconciled boolean DEFAULT false,
    CHECK (credit * debit = 0)
);

CREATE TABLE sale_order (
    id serial PRIMARY KEY,
    name varchar NOT NULL,
    state varchar DEFAULT 'draft',
    partner_id integer NOT NULL REFERENCES res_partner ON DELETE RESTRICT,
    user_id integer REFERENCES res_users ON DELETE SET NULL,
    amount_total numeric,
    date_order timestamp NOT NULL,
    warehouse_id integer,
    note text,
    write_uid integer REFERENCES res_users ON DELETE SET NULL,
    write_date timestamp
);

CREATE TABLE sale_order_line (
    id serial PRIMARY KEY,
    order_id integer NOT NULL REFERENCES sale_order ON DELETE CASCADE,
    product_id integer REFERENCES product_product ON DELETE RESTRICT,
    name text NOT NULL,
    product_uom_qty numeric NOT NULL DEFAULT 1,
    price_unit numeric NOT NULL DEFAULT 0,
    price_subtotal numeric
);

CREATE TABLE stock_location (
    id serial PRIMARY KEY,
    complete_name varchar,
    usage varchar NOT NULL DEFAULT 'internal'
);

CREATE TABLE stock_move (
    id serial PRIMARY KEY,
    name varchar NOT NULL,
    state varchar DEFAULT 'draft',
    product_id integer NOT NULL REFERENCES product_product ON DELETE RESTRICT,
    product_uom_qty numeric NOT NULL DEFAULT 0,
    location_id integer NOT NULL REFERENCES stock_location ON DELETE RESTRICT,
    location_dest_id integer NOT NULL REFERENCES stock_location ON DELETE RESTRICT,
    sale_line_id integer REFERENCES sale_order_line ON DELETE SET NULL,
    unit_factor numeric,
    write_date timestamp
);

CREATE TABLE stock_quant (
    id serial PRIMARY KEY,
    product_id integer NOT NULL REFERENCES product_product ON DELETE RESTRICT,
    location_id integer NOT NULL REFERENCES stock_location ON DELETE RESTRICT,
    quantity numeric NOT NULL DEFAULT 0,
    reserved_quantity numeric NOT NULL DEFAULT 0,
    UNIQUE (product_id, location_id)
);

CREATE TABLE ir_attachment (
    id serial PRIMARY KEY,
    name varchar NOT NULL,
    res_model varchar,
    res_id integer,
    store_fname varchar,
    checksum varchar(40),
    file_size integer
);

CREATE TABLE ir_cron (
    id serial PRIMARY KEY,
    cron_name varchar,
    active boolean DEFAULT true,
    interval_number integer NOT NULL DEFAULT 1,
    interval_type varchar NOT NULL DEFAULT 'days',
    nextcall timestamp NOT NULL,
    lastcall timestamp,
    priority integer DEFAULT 5
);

CREATE TABLE ir_module_module (
    id serial PRIMARY KEY,
    name varchar NOT NULL UNIQUE,
    state varchar,
    demo boolean DEFAULT false,
    latest_version varchar
);

CREATE TABLE ir_config_parameter (
    id serial PRIMARY KEY,
    key varchar NOT NULL UNIQUE,
    value text NOT NULL
);

CREATE TABLE mail_message (
    id serial PRIMARY KEY,
    model varchar,
    res_id integer,
    author_id integer REFERENCES res_partner ON DELETE SET NULL,
    subject varchar,
    body text,
    date timestamp
);

CREATE TABLE bus_bus (
    id serial PRIMARY KEY,
    channel varchar,
    message varchar,
    create_date timestamp
);

-- A partitioned table.
CREATE TABLE ir_logging (
    id bigserial,
    create_date timestamp NOT NULL,
    level varchar,
    name varchar NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (id, create_date)
) PARTITION BY RANGE (create_date);
CREATE TABLE ir_logging_2025 PARTITION OF ir_logging FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE ir_logging_2026 PARTITION OF ir_logging FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE ir_logging_rest PARTITION OF ir_logging DEFAULT;

-- What the trigger below fills.
CREATE TABLE account_move_audit (
    id bigserial PRIMARY KEY,
    move_id integer,
    operation varchar NOT NULL,
    at timestamp NOT NULL DEFAULT pg_catalog.now()
);

INSERT INTO res_users (login, password)
    VALUES ('__system__', NULL), ('admin', 'x'), ('demo', 'x');
INSERT INTO res_company (name) VALUES ('My Company');
INSERT INTO res_partner (name, email, company_id, user_id)
    SELECT 'Partner ' || n, 'partner' || n || '@example.com', 1, 1 + n % 3
    FROM generate_series(1, greatest(10, :rows / 20)) AS n;
INSERT INTO product_product (default_code, list_price)
    SELECT 'P' || n, n % 500 FROM generate_series(1, greatest(10, :rows / 100)) AS n;
INSERT INTO account_journal (code, name) VALUES
    ('INV', '{"en_US": "Customer Invoices"}'), ('BILL', '{"en_US": "Vendor Bills"}'), ('BNK1', '{"en_US": "Bank"}');
INSERT INTO account_move (name, state, move_type, date, journal_id, partner_id, company_id, amount_total, create_uid, write_date)
    SELECT 'INV/2026/' || n, CASE n % 10 WHEN 0 THEN 'draft' ELSE 'posted' END,
           CASE n % 3 WHEN 0 THEN 'in_invoice' WHEN 1 THEN 'out_invoice' ELSE 'entry' END,
           date '2026-01-01' + n % 300, 1 + n % 3, 1 + n % greatest(10, :rows / 20), 1, n % 1000, 2, '2026-11-01'
    FROM generate_series(1, :rows) AS n;
INSERT INTO account_move_line (move_id, partner_id, name, debit, credit, balance)
    SELECT m.id, m.partner_id, m.name, s.debit, s.credit, s.debit - s.credit
    FROM account_move AS m
    CROSS JOIN LATERAL (VALUES (m.amount_total, 0), (0, m.amount_total)) AS s (debit, credit);
INSERT INTO sale_order (name, state, partner_id, user_id, amount_total, date_order)
    SELECT 'S' || n, CASE n % 4 WHEN 0 THEN 'draft' ELSE 'sale' END, 1 + n % greatest(10, :rows / 20), 2, n % 700,
           timestamp '2026-01-01' + n % 300 * interval '1 day'
    FROM generate_series(1, :rows / 5) AS n;
INSERT INTO sale_order_line (order_id, product_id, name, product_uom_qty, price_unit, price_subtotal)
    SELECT o.id, 1 + (o.id + l) % greatest(10, :rows / 100), 'line ' || l, l, 10, l * 10
    FROM sale_order AS o CROSS JOIN generate_series(1, 2) AS l;
INSERT INTO stock_location (complete_name, usage) VALUES
    ('WH/Stock', 'internal'), ('Partners/Customers', 'customer'), ('Partners/Vendors', 'supplier');
INSERT INTO stock_move (name, state, product_id, product_uom_qty, location_id, location_dest_id, sale_line_id)
    SELECT l.name, 'done', l.product_id, l.product_uom_qty, 1, 2, l.id FROM sale_order_line AS l;
INSERT INTO stock_quant (product_id, location_id, quantity)
    SELECT id, 1, 100 FROM product_product;
INSERT INTO ir_attachment (name, res_model, res_id, store_fname, file_size)
    SELECT 'INV-' || n || '.pdf', 'account.move', n, substr(md5(n::text), 1, 2) || '/' || md5(n::text), n
    FROM generate_series(1, :rows / 10) AS n;
INSERT INTO ir_cron (cron_name, nextcall)
    VALUES ('Mail: Email Queue Manager', '2026-01-01'), ('Base: Auto-vacuum internal data', '2026-01-01'),
           ('Procurement: run scheduler', '2026-01-01');
INSERT INTO ir_module_module (name, state, latest_version)
    VALUES ('base', 'installed', '17.0.1.3'), ('sale', 'installed', '17.0.1.2'), ('stock', 'installed', '17.0.1.1'),
           ('account', 'installed', '17.0.1.2'), ('mrp', 'uninstalled', NULL);
INSERT INTO ir_config_parameter (key, value) VALUES ('database.uuid', 'e5b7f0f0-0000-4000-8000-000000000000');
INSERT INTO mail_message (model, res_id, author_id, body, date)
    SELECT 'account.move', n, 1, 'Invoice created', '2026-01-01' FROM generate_series(1, :rows / 10) AS n;
INSERT INTO ir_logging (create_date, level, name, message)
    SELECT timestamp '2025-06-01' + n * interval '1 day', 'info', 'odoo', 'message ' || n FROM generate_series(1, 400) AS n;

CREATE INDEX account_move_partner_id_index ON account_move (partner_id);
CREATE INDEX account_move_line_move_id_index ON account_move_line (move_id);
CREATE INDEX account_move_line_partner_id_index ON account_move_line (partner_id);
CREATE INDEX sale_order_partner_id_index ON sale_order (partner_id);
CREATE INDEX sale_order_line_order_id_index ON sale_order_line (order_id);
CREATE INDEX stock_move_product_id_index ON stock_move (product_id);
CREATE INDEX stock_move_sale_line_id_index ON stock_move (sale_line_id);
CREATE INDEX ir_attachment_res_idx ON ir_attachment (res_model, res_id);
CREATE INDEX mail_message_res_idx ON mail_message (model, res_id);

-- An updatable view: a DELETE from it is a DELETE from account_move.
CREATE VIEW account_invoice AS
    SELECT id, name, state, date, partner_id, amount_total FROM account_move WHERE move_type = 'out_invoice';

-- A trigger that writes.
CREATE FUNCTION account_move_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO account_move_audit (move_id, operation) VALUES (coalesce(NEW.id, OLD.id), TG_OP);
    RETURN NULL;
END $$;
CREATE TRIGGER account_move_audit AFTER DELETE ON account_move
    FOR EACH ROW EXECUTE FUNCTION account_move_audit();

-- A deferred trigger: what it does is done at COMMIT, after every command tag.
CREATE FUNCTION stock_move_recompute() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stock_quant SET reserved_quantity = 0 WHERE product_id = NEW.product_id;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER stock_move_recompute AFTER UPDATE OF product_uom_qty ON stock_move
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stock_move_recompute();

-- Functions that write; their calls look like reads.
CREATE FUNCTION archive_partners() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    UPDATE res_partner SET active = false;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
CREATE FUNCTION cancel_order(order_id integer) RETURNS void LANGUAGE sql AS $$
    UPDATE sale_order SET state = 'cancel' WHERE id = order_id;
$$;
CREATE PROCEDURE purge_messages() LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM mail_message;
    COMMIT;
END $$;
