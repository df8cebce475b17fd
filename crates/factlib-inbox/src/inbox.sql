-- An inbox: the events that consumers have handled, each in the transaction of its effect.
-- It may be installed again. Every name is written out and search_path is pinned; all runs with the
-- caller's rights.
CREATE SCHEMA IF NOT EXISTS factlib;

CREATE TABLE IF NOT EXISTS factlib.inbox (
    consumer text NOT NULL,
    event_id text NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX IF NOT EXISTS inbox_handled_at ON factlib.inbox (consumer, handled_at);

-- True the first time: handle the event in this transaction. False: it has been handled, skip it. While
-- another transaction handles the same event, the call waits for its end. Of an id that no index takes,
-- the table has the hash.
CREATE OR REPLACE FUNCTION factlib.first_delivery(consumer text, event_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept text := event_id;
BEGIN
    IF octet_length(event_id) > 1000 THEN
        kept := 'sha256:' || encode(sha256(convert_to(event_id, 'UTF8')), 'hex');
    END IF;
    INSERT INTO factlib.inbox (consumer, event_id) VALUES (consumer, kept) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- Forgets at most `most` events that were handled longer ago than `age`, and returns how many. An
-- event that is delivered again after that is handled again.
CREATE OR REPLACE FUNCTION factlib.forget_deliveries(consumer text, age interval, most int DEFAULT 10000)
RETURNS bigint
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    forgotten bigint;
BEGIN
    DELETE FROM factlib.inbox WHERE ctid = ANY (ARRAY (
        SELECT old.ctid FROM factlib.inbox AS old
        WHERE old.consumer = forget_deliveries.consumer
            AND old.handled_at < clock_timestamp() - age
        LIMIT most));
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
