-- All that the catalog knows of a publication and of the tables that are read from it, as one
-- JSON object. $1: the publication; for each [[outbox]], $2: whether it is a pattern, $3 and $4: the
-- schema and name, of a pattern for LIKE.
--
-- It runs on PostgreSQL 10 and later: columns that came with later versions are read through
-- to_jsonb, which gives null where they are missing.
WITH RECURSIVE entries AS (
    SELECT * FROM unnest($2::bool[], $3::text[], $4::text[])
        WITH ORDINALITY AS t(is_pattern, schema, name, n)
), wanted AS (
    SELECT t.n, c.oid, c.relkind, c.relispartition, c.relowner, s.nspname, c.relname
    FROM entries t
    JOIN pg_namespace s ON s.nspname = t.schema::name
    JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.name::name
    WHERE NOT t.is_pattern
    UNION ALL
    -- A pattern stands for tables alone; the rows of a partition are those of its table.
    SELECT t.n, c.oid, c.relkind, c.relispartition, c.relowner, s.nspname, c.relname
    FROM entries t
    JOIN pg_namespace s ON s.nspname LIKE t.schema AND s.nspname !~ '^pg_'
        AND s.nspname <> 'information_schema'
    JOIN pg_class c ON c.relnamespace = s.oid AND c.relname LIKE t.name
    WHERE t.is_pattern AND c.relkind IN ('r', 'p') AND NOT c.relispartition
), family AS (
    -- Partitions and children, however deep.
    SELECT oid AS root, oid FROM wanted
    UNION
    SELECT f.root, i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
), published AS (
    SELECT t.schemaname, t.tablename, c.oid, to_jsonb(t) -> 'attnames' AS columns,
           to_jsonb(t) ->> 'rowfilter' AS filter,
           EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                   WHERE p.pubname = $1 AND r.prrelid = c.oid) AS named
    FROM pg_publication_tables t
    JOIN pg_namespace s ON s.nspname = t.schemaname
    JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = t.tablename
    WHERE t.pubname = $1
), identities AS (
    -- The index by which a published UPDATE or DELETE names a row.
    SELECT c.oid,
           (SELECT json_agg(a.attname ORDER BY a.attnum)
            FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
              AND i.indpred IS NULL
              AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                                      WHEN 'i' THEN i.indisreplident ELSE false END) AS columns,
           EXISTS (SELECT FROM pg_index i
                   WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate) AS deferrable
    FROM pg_class c WHERE c.oid IN (SELECT oid FROM family)
)
SELECT json_build_object(
    'version', current_setting('server_version_num')::int,
    'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                ELSE pg_current_wal_insert_lsn() END::text,
    'at_us', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    'publication', (
        SELECT json_build_object(
            'all_tables', p.puballtables, 'insert', p.pubinsert, 'update', p.pubupdate,
            'delete', p.pubdelete, 'truncate', to_jsonb(p) -> 'pubtruncate',
            'via_root', coalesce(to_jsonb(p) -> 'pubviaroot', 'false'),
            'generated', coalesce(to_jsonb(p) ->> 'pubgencols', 'n'),
            'owned', pg_has_role(p.pubowner, 'USAGE'),
            'mark', p.oid::text)
        FROM pg_publication p WHERE p.pubname = $1),
    'tables', (
        SELECT coalesce(json_agg(json_build_object(
            'n', w.n, 'name', json_build_array(w.nspname, w.relname), 'kind', w.relkind,
            'owned', pg_has_role(w.relowner, 'USAGE'),
            'columns', (
                SELECT coalesce(json_agg(json_build_object(
                    'name', a.attname, 'type_oid', a.atttypid::bigint,
                    'base_type_oid', base.oid::bigint, 'is_enum', base.typtype = 'e',
                    'modifier', a.atttypmod, 'not_null', a.attnotnull,
                    'generated', coalesce(to_jsonb(a) ->> 'attgenerated', ''))
                    ORDER BY a.attnum), '[]')
                FROM pg_attribute a
                CROSS JOIN LATERAL (
                    WITH RECURSIVE types AS (
                        SELECT t.oid, t.typbasetype, t.typtype
                        FROM pg_type t WHERE t.oid = a.atttypid
                        UNION ALL
                        SELECT t.oid, t.typbasetype, t.typtype
                        FROM types d JOIN pg_type t ON t.oid = d.typbasetype)
                    SELECT t.oid, t.typtype FROM types t WHERE t.typbasetype = 0) base
                WHERE a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped),
            -- The table and what is below it, where there is something to say about it.
            'members', (
                SELECT coalesce(json_agg(json_build_object(
                    'name', json_build_array(s.nspname, c.relname), 'is_root', c.oid = w.oid,
                    'kind', c.relkind, 'persistence', c.relpersistence,
                    'partition', c.relispartition, 'identity', c.relreplident,
                    'key', i.columns, 'deferrable', i.deferrable)
                    ORDER BY s.nspname, c.relname), '[]')
                FROM family f JOIN pg_class c ON c.oid = f.oid
                JOIN pg_namespace s ON s.oid = c.relnamespace
                JOIN identities i ON i.oid = c.oid
                WHERE f.root = w.oid
                  AND (c.oid = w.oid OR c.relkind NOT IN ('r', 'p') OR c.relpersistence <> 'p'
                       OR NOT c.relispartition
                       OR c.relkind = 'r' AND c.relreplident <> 'f' AND i.columns IS NULL)),
            -- A column of a partition key depends on its table, also where it is in an expression.
            'partition_key', (
                SELECT coalesce(json_agg(DISTINCT a.attname), '[]')
                FROM family f
                JOIN pg_class c ON c.oid = f.oid AND c.relkind = 'p'
                JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = f.oid
                    AND d.objsubid <> 0 AND d.refclassid = 'pg_class'::regclass
                    AND d.refobjid = f.oid AND d.refobjsubid = 0 AND d.deptype = 'i'
                JOIN pg_attribute a ON a.attrelid = f.oid AND a.attnum = d.objsubid
                WHERE f.root = w.oid),
            'published', (
                SELECT json_build_object('columns', p.columns, 'filter', p.filter)
                FROM published p WHERE p.oid = w.oid),
            -- By its partitions, each under its own name.
            'partitions_published', EXISTS (
                SELECT FROM family f JOIN published p ON p.oid = f.oid
                WHERE f.root = w.oid AND f.oid <> w.oid),
            'named', EXISTS (
                SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                WHERE p.pubname = $1 AND r.prrelid = w.oid),
            -- The parent under whose name the changes of a partition are published.
            'published_as', (
                WITH RECURSIVE up AS (
                    SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = w.oid
                    UNION
                    SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.inhparent)
                SELECT json_build_array(p.schemaname, p.tablename)
                FROM up JOIN published p ON p.oid = up.inhparent WHERE w.relispartition
                ORDER BY p.schemaname, p.tablename LIMIT 1),
            -- By a transaction after the one that created it. A system column's row is never changed.
            'added_later', EXISTS (
                SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                JOIN pg_attribute a ON a.attrelid = w.oid AND a.attname = 'ctid'
                WHERE p.pubname = $1 AND r.prrelid = w.oid AND r.xmin <> a.xmin),
            -- All tables of a database or schema are published as soon as they exist.
            'mark', coalesce((
                SELECT w.oid || ' ' || r.xmin
                FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                WHERE p.pubname = $1 AND r.prrelid = w.oid), ''))
            ORDER BY w.n, w.nspname, w.relname), '[]')
        FROM wanted w),
    -- Published and not read: what somebody put there by name, or what looks like an outbox.
    'unconfigured', (
        SELECT coalesce(json_agg(json_build_object(
            'name', json_build_array(p.schemaname, p.tablename), 'named', p.named)
            ORDER BY p.schemaname, p.tablename), '[]')
        FROM published p
        WHERE p.oid NOT IN (SELECT oid FROM family)
          AND (p.named OR p.oid IN (
              SELECT a.attrelid FROM pg_attribute a
              WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attname IN (
                  'id', 'payload', 'aggregate_type', 'aggregatetype', 'aggregate_id', 'aggregateid')
              GROUP BY a.attrelid HAVING count(*) >= 4)))
)::text
