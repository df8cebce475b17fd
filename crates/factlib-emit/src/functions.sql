-- Facts from SQL: the functions that `factlib setup --sql-functions` installs.
-- Every name is written out and search_path is pinned, so that nobody's objects stand in
-- for ours; all run with the caller's rights. The bytes are those of the Rust client.
CREATE SCHEMA IF NOT EXISTS factlib;

-- A number as protobuf's varint; negative ones as their 64 bits.
CREATE OR REPLACE FUNCTION factlib.varint(n bigint) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bytes bytea := ''::bytea;
BEGIN
    WHILE n NOT BETWEEN 0 AND 127 LOOP
        bytes := bytes || set_byte('\x00'::bytea, 0, (n & 127)::int | 128);
        -- 2^57 - 1: the shift copies the sign, the mask takes it away.
        n := (n >> 7) & 144115188075855871;
    END LOOP;
    RETURN bytes || set_byte('\x00'::bytea, 0, n::int);
END $$;

-- A length-delimited field below 16; nothing where its value is the default.
CREATE OR REPLACE FUNCTION factlib.field(tag int, bytes bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN length(bytes) = 0 THEN ''::bytea
        ELSE set_byte('\x00'::bytea, 0, tag * 8 + 2) || factlib.varint(length(bytes)) || bytes END
$$;

-- An OutboxEvent. Metadata in the order of its keys' bytes, as the Rust client has it.
CREATE OR REPLACE FUNCTION factlib.encode_event(
    id uuid, aggregate_type text, aggregate_id text, event_type text,
    payload bytea, created_at_ns bigint, metadata jsonb DEFAULT '{}'
) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bytes bytea;
    entry record;
    content bytea;
BEGIN
    IF coalesce(aggregate_type, '') = '' THEN
        RAISE EXCEPTION 'factlib: aggregate_type is empty' USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(aggregate_id, '') = '' THEN
        RAISE EXCEPTION 'factlib: aggregate_id is empty' USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(event_type, '') = '' THEN
        RAISE EXCEPTION 'factlib: event_type is empty' USING ERRCODE = 'invalid_parameter_value';
    ELSIF aggregate_type COLLATE "C" !~ '^[A-Za-z0-9._-]+$' THEN
        RAISE EXCEPTION 'factlib: aggregate_type "%" makes no topic name: letters, digits, ''.'', ''_'' and ''-'' are allowed', aggregate_type
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF length(aggregate_type) > 247 THEN
        RAISE EXCEPTION 'factlib: aggregate_type of % characters makes no topic name: at most 247 are allowed', length(aggregate_type)
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF id IS NULL OR created_at_ns IS NULL THEN
        RAISE EXCEPTION 'factlib: id or created_at_ns is null' USING ERRCODE = 'null_value_not_allowed';
    ELSIF jsonb_typeof(coalesce(metadata, '{}')) <> 'object' THEN
        RAISE EXCEPTION 'factlib: metadata is no object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    bytes := factlib.field(1, convert_to(id::text, 'UTF8'))
        || factlib.field(2, convert_to(aggregate_type, 'UTF8'))
        || factlib.field(3, convert_to(aggregate_id, 'UTF8'))
        || factlib.field(4, convert_to(event_type, 'UTF8'))
        || factlib.field(5, coalesce(payload, ''::bytea));
    IF created_at_ns <> 0 THEN
        bytes := bytes || '\x30'::bytea || factlib.varint(created_at_ns);
    END IF;
    FOR entry IN
        SELECT convert_to(pair.key, 'UTF8') AS name, pair.key, pair.value
        FROM jsonb_each_text(coalesce(metadata, '{}')) AS pair ORDER BY 1
    LOOP
        IF entry.value IS NULL THEN
            RAISE EXCEPTION 'factlib: metadata "%" is null', entry.key USING ERRCODE = 'null_value_not_allowed';
        END IF;
        content := factlib.field(1, entry.name) || factlib.field(2, convert_to(entry.value, 'UTF8'));
        -- Written out also when it is empty: an entry is there or not.
        bytes := bytes || '\x3a'::bytea || factlib.varint(length(content)) || content;
    END LOOP;
    -- Kafka's default limit, less room for key and headers; NULL or 0 takes it away.
    IF length(bytes) > nullif(coalesce(nullif(current_setting('factlib.max_bytes', true), '')::bigint, 1000000), 0) THEN
        RAISE EXCEPTION 'factlib: a fact of % bytes is too large for the broker''s limit', length(bytes)
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Where the broker takes more, SET factlib.max_bytes; 0 is no limit.';
    END IF;
    RETURN bytes;
END $$;

-- A UUID of version 7. Its 12 bits after the milliseconds are their fraction.
CREATE OR REPLACE FUNCTION factlib.uuid_v7() RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    random text;
BEGIN
    IF current_setting('server_version_num')::int >= 130000 THEN
        random := replace(gen_random_uuid()::text, '-', '');
    ELSE
        random := md5(random()::text || random()::text || us::text || pg_backend_pid()::text);
    END IF;
    RETURN (lpad(to_hex(us / 1000), 12, '0')
        || '7' || lpad(to_hex((us % 1000) * 4096 / 1000), 3, '0')
        || substr('89ab', (us % 4)::int + 1, 1) || substr(random, 18, 15))::uuid;
END $$;

-- Emits a fact in the current transaction and returns its event id.
CREATE OR REPLACE FUNCTION factlib.emit(
    aggregate_type text, aggregate_id text, event_type text,
    payload bytea, metadata jsonb DEFAULT '{}', prefix text DEFAULT 'factlib'
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id uuid := factlib.uuid_v7();
    created_at_ns bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;
BEGIN
    IF coalesce(prefix, '') = '' THEN
        RAISE EXCEPTION 'factlib: prefix is empty' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_logical_emit_message(true, prefix, factlib.encode_event(
        id, aggregate_type, aggregate_id, event_type, payload, created_at_ns, metadata));
    RETURN id;
END $$;

CREATE OR REPLACE FUNCTION factlib.emit(
    aggregate_type text, aggregate_id text, event_type text,
    payload text, metadata jsonb DEFAULT '{}', prefix text DEFAULT 'factlib'
) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT factlib.emit(aggregate_type, aggregate_id, event_type,
        convert_to(coalesce(payload, ''), 'UTF8'), metadata, prefix)
$$;

-- The content type is application/json where metadata gives no other.
CREATE OR REPLACE FUNCTION factlib.emit(
    aggregate_type text, aggregate_id text, event_type text,
    payload jsonb, metadata jsonb DEFAULT '{}', prefix text DEFAULT 'factlib'
) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT factlib.emit(aggregate_type, aggregate_id, event_type,
        convert_to(coalesce(payload::text, ''), 'UTF8'),
        '{"content_type": "application/json"}'::jsonb || coalesce(metadata, '{}'), prefix)
$$;

-- Emits the facts of an array in its order and returns their ids: objects as the lines of
-- `factlib emit --stdin`, with payload, which is any JSON, or payload_base64.
CREATE OR REPLACE FUNCTION factlib.emit_batch(facts jsonb, prefix text DEFAULT 'factlib')
RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fact jsonb;
    unknown text;
BEGIN
    IF jsonb_typeof(facts) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'factlib: facts are no array' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR fact IN SELECT value FROM jsonb_array_elements(facts) WITH ORDINALITY ORDER BY ordinality LOOP
        SELECT min(key) INTO unknown FROM jsonb_object_keys(fact) AS key
        WHERE key NOT IN ('aggregate_type', 'aggregate_id', 'event_type', 'payload', 'payload_base64', 'metadata');
        IF unknown IS NOT NULL OR (fact ? 'payload' AND fact ? 'payload_base64') THEN
            RAISE EXCEPTION 'factlib: a fact has the unknown field "%", or two payloads', unknown
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF fact ? 'payload_base64' THEN
            RETURN NEXT factlib.emit(fact ->> 'aggregate_type', fact ->> 'aggregate_id', fact ->> 'event_type',
                decode(fact ->> 'payload_base64', 'base64'), coalesce(fact -> 'metadata', '{}'), prefix);
        ELSE
            RETURN NEXT factlib.emit(fact ->> 'aggregate_type', fact ->> 'aggregate_id', fact ->> 'event_type',
                fact -> 'payload', coalesce(fact -> 'metadata', '{}'), prefix);
        END IF;
    END LOOP;
END $$;
