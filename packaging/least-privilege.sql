-- Roles that may do what the relay and its emitters have to, and nothing else.
--
-- Run `factlib setup` first, and then this, both as an administrator of the database that is read:
--     factlib setup --postgres-url postgresql://postgres@db/shop [--outbox-table] [--sql-functions]
--     psql -f least-privilege.sql postgresql://postgres@db/shop
-- Then `\password factlib_relay`, and `GRANT factlib_emitter TO` each service that emits. The relay runs
-- with `postgres.create = false`. Fit the names of the roles and of the table to yours.

CREATE ROLE factlib_relay LOGIN REPLICATION CONNECTION LIMIT 10;
CREATE ROLE factlib_emitter NOLOGIN;

-- The default before PostgreSQL 15.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- The relay: its position, and what it could not deliver.
GRANT USAGE ON SCHEMA factlib TO factlib_relay, factlib_emitter;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON factlib.checkpoints, factlib.topic_partitions, factlib.dead_letters, factlib.redriven
    TO factlib_relay;

-- Receipts, with receipts.store = "table"; a service that waits for its own needs SELECT, too.
DO $$ BEGIN
    IF to_regclass('factlib.receipts') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON factlib.receipts TO factlib_relay;
        GRANT SELECT ON factlib.receipts TO factlib_emitter;
    END IF;
END $$;

-- Only with `dead_letter.policy = "hold-aggregate"`.
DO $$ BEGIN
    IF to_regclass('factlib.held_events') IS NOT NULL THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON factlib.held_events TO factlib_relay;
    END IF;
END $$;

-- Facts as rows: emitters insert, and the relay, which reads the WAL, needs no right on the table.
-- Only for `retention.after` and `factlib replay`, GRANT SELECT, UPDATE, DELETE to factlib_relay.
-- With a pattern of tables, who creates a new one adds it to the publication, in the same transaction.
DO $$ BEGIN
    IF to_regclass('public.outbox_events') IS NOT NULL THEN
        GRANT INSERT ON public.outbox_events TO factlib_emitter;
    END IF;
END $$;

-- Facts as logical messages: by default everybody may write them, with any prefix. This takes a
-- superuser; where a managed service has none to give, whoever may connect may emit.
DO $$ DECLARE
    emit regprocedure;
BEGIN
    FOR emit IN SELECT oid FROM pg_proc
        WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', emit);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO factlib_emitter', emit);
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'pg_logical_emit_message stays open to everybody: that takes a superuser';
END $$;
