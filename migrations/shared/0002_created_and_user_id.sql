-- For a format that stores the user in the document: the column is generated, so the other
-- application's logins belong to the user, too. The user can be an object with a member `id`.
-- The function replaces U+0000 and lone surrogates, which the operators of `json` refuse, and
-- returns NULL for an id that is too long for an index.
CREATE OR REPLACE FUNCTION "public"."session_user_in"(document json) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    passport json;
    id text;
BEGIN
    IF pg_catalog.strpos(document::text, E'\\u') > 0 THEN
        document := pg_catalog.regexp_replace(
            document::text,
            E'\\\\u0000'
                '|\\\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\\\u[dD][c-fC-F])'
                '|(?<!\\\\u[dD][89abAB][0-9a-fA-F]{2})\\\\u[dD][c-fC-F][0-9a-fA-F]{2}',
            E'\\\\ufffd',
            'g'
        );
    END IF;
    passport := document OPERATOR(pg_catalog.->) 'passport';
    id := COALESCE(
        passport OPERATOR(pg_catalog.->) 'user' OPERATOR(pg_catalog.->>) 'id',
        passport OPERATOR(pg_catalog.->>) 'user'
    );
    RETURN CASE WHEN pg_catalog.octet_length(id) BETWEEN 1 AND 1024 THEN id END;
END
$$;

ALTER TABLE "public"."session"
    ADD COLUMN IF NOT EXISTS created timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS user_id text GENERATED ALWAYS AS ("public"."session_user_in"(session::json)) STORED;
