-- For a format that stores the user in the document: the column is generated, so the other
-- application's logins belong to the user, too. A user is never NULL if Passport has one, because
-- a login must not keep the data of another user. An id that is too long for an index is replaced
-- by its digest.
--
-- The operators of `json` fail for U+0000 and lone surrogates anywhere in the document. Then these
-- escapes become U+FFFD and their digits. Meanwhile, control characters, which JSON text can't
-- contain, stand for escaped backslashes and for pairs of surrogates.
CREATE OR REPLACE FUNCTION "public"."session_user_in"(document json) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $axum_pg_session$
DECLARE
    passport json;
    id text;
    cleaned text;
BEGIN
    IF pg_catalog.strpos(document::text, E'\\u') = 0 THEN
        passport := document OPERATOR(pg_catalog.->) 'passport';
    ELSE
        BEGIN
            passport := document OPERATOR(pg_catalog.->) 'passport';
        EXCEPTION WHEN data_exception THEN
            cleaned := pg_catalog.replace(document::text, E'\\\\', E'\x01');
            cleaned := pg_catalog.regexp_replace(
                cleaned,
                E'\\\\u([dD][89abAB][0-9a-fA-F]{2})\\\\u([dD][c-fC-F][0-9a-fA-F]{2})',
                E'\x02\\1\x02\\2',
                'g'
            );
            cleaned := pg_catalog.regexp_replace(
                cleaned,
                E'\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})',
                -- Other encodings have no U+FFFD.
                CASE pg_catalog.getdatabaseencoding() WHEN 'UTF8' THEN E'\\\\ufffd\\1' ELSE E'?\\1' END,
                'g'
            );
            cleaned := pg_catalog.replace(cleaned, E'\x02', E'\\u');
            cleaned := pg_catalog.replace(cleaned, E'\x01', E'\\\\');
            passport := cleaned::json OPERATOR(pg_catalog.->) 'passport';
        END;
    END IF;
    id := passport OPERATOR(pg_catalog.->>) 'user';
    RETURN CASE
        WHEN id IN ('', 'false')
            AND (passport OPERATOR(pg_catalog.->) 'user')::text IN ('""', 'false')
            THEN NULL
        WHEN pg_catalog.octet_length(pg_catalog.convert_to(id, 'UTF8')) > 1024
            THEN 'sha256:' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(id, 'UTF8')), 'hex')
        ELSE id
    END;
END
$axum_pg_session$;
-- Every role that writes the table calls it.
GRANT EXECUTE ON FUNCTION "public"."session_user_in"(json) TO PUBLIC;

-- The beginning of rows that exist is unknown. With a default, their logins would seem recent.
ALTER TABLE "public"."session"
    ADD COLUMN IF NOT EXISTS created timestamptz,
    ADD COLUMN IF NOT EXISTS user_id text GENERATED ALWAYS AS ("public"."session_user_in"(session::json)) STORED;
ALTER TABLE "public"."session" ALTER COLUMN created SET DEFAULT now();
