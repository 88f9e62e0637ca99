//! No `.sql` file has what partitions, postgres_fdw, Citus or poolers refuse or execute wrongly.

use std::{fs, path::Path};

struct Rule {
    /// Who refuses it, and with what.
    why: &'static str,
    forbids: fn(&str) -> bool,
    example: &'static str,
}

/// In small letters and with single spaces.
const STATEMENTS: [Rule; 19] = [
    Rule {
        why: "fdw, 42P10: no unique constraint matches a target",
        forbids: |sql| sql.contains("on conflict (") || sql.contains("on conflict on"),
        example: "insert into s as t (id) values ($1) on conflict (id) do nothing",
    },
    Rule {
        why: "Citus, 0A000: STABLE functions can't be called with column references",
        forbids: |sql| {
            let reckons = sql.contains("interval '") || sql.contains("now() +");
            reckons || (is_written(sql) && has(sql, &["extract(epoch from t.", "'epoch', t."]))
        },
        example: "update s as t set expiry = now() + d.ttl * interval '1 s'",
    },
    Rule {
        why: "Citus, 0A000: must not be VOLATILE; and a wait for a lock would move the time",
        forbids: |sql| has(sql, &["clock_timestamp", "random", "nextval", "timeofday"]),
        example: "update s as t set expiry = clock_timestamp() where t.id = $1",
    },
    Rule {
        why: "Citus asks all shards, fdw locks the table, plain Postgres deadlocks",
        forbids: |sql| {
            sql.contains("unnest(")
                && !sql.contains("insert into")
                && !sql.contains("t.id = any($1)")
        },
        example: "update s as t set session = d.new from unnest($1) as d(id) where t.id = d.id",
    },
    Rule {
        why: "fdw and partitions have no system columns: two winners, or 0A000",
        forbids: |sql| has(sql, &["xmin", "xmax", "ctid", "tableoid"]),
        example: "update s as t set session = $2 where t.id = $1 and t.xmin = $3",
    },
    Rule {
        why: "Citus, 0A000: could not run distributed query with FOR UPDATE, but for one id",
        forbids: |sql| {
            has(sql, &["for update", "for share", "for no key", "for key"])
                && (!sql.contains("where t.id = $1") || has(sql, &["skip locked", "nowait"]))
        },
        example: "select t.id from s as t where t.id = any($1) for update",
    },
    Rule {
        why: "Citus, 0A000: SKIP LOCKED",
        forbids: |sql| has(sql, &["skip locked", "nowait"]),
        example: "select t.id from s as t where t.id = $1 for update skip locked",
    },
    Rule {
        why: "Citus, 0A000 or a crash: modifying the partition value",
        forbids: |sql| has(sql, &["set id =", ", id ="]),
        example: "update s as t set id = $2 where t.id = $1",
    },
    Rule {
        why: "Citus crashes over a bare subscript",
        forbids: |sql| has(sql, &["= (array[", "= (array [", "= ($"]),
        example: "update s as t set session = ($2::text[])[array_position($1, t.id)]",
    },
    Rule {
        why: "Citus, XX000 instead of 23505 for an id that exists",
        forbids: |sql| {
            has(
                sql,
                &[
                    "as (delete",
                    "as (insert",
                    "as (update",
                    "as materialized (delete",
                ],
            )
        },
        example: "with old as (delete from s as t where t.id = $1) insert into s values ($2)",
    },
    Rule {
        why: "fdw and Citus, 0A000 or XX000: MERGE",
        forbids: |sql| sql.contains("merge "),
        example: "merge into s as t using d on t.id = d.id when matched then delete",
    },
    Rule {
        why: "Citus, 42883 or all shards: a list of ids is ANY of one array",
        forbids: |sql| has(sql, &["case t.id", "or t.id =", "or (t.id =", "(values"]),
        example: "update s as t set session = case t.id when $1 then $2 end",
    },
    Rule {
        why: "Citus asks all shards where a load joins",
        forbids: |sql| {
            sql.contains("join unnest") || (sql.contains("unnest(") && sql.starts_with("select"))
        },
        example: "select t.id from s as t join unnest($1) as d(id) on t.id = d.id and t.id = any($1)",
    },
    Rule {
        why: "Citus: non-IMMUTABLE functions are not allowed in CASE or COALESCE statements",
        forbids: |sql| {
            let asks = |(begin, end)| {
                let mut conditions = sql.split(begin).skip(1);
                conditions.any(|rest| rest.split(end).next().unwrap_or_default().contains("now("))
            };
            [("case ", " end"), ("coalesce(", ")")]
                .into_iter()
                .any(asks)
        },
        example: "update s as t set expiry = case when $2 then now() else t.expiry end",
    },
    Rule {
        why: "Citus: non-IMMUTABLE functions are not allowed in the RETURNING clause",
        forbids: |sql| {
            sql.split("returning")
                .skip(1)
                .any(|returned| returned.contains("now("))
        },
        example: "update s as t set session = $2 where t.id = $1 returning now()",
    },
    Rule {
        why: "poolers: a lock of the session outlives the transaction",
        forbids: |sql| has(sql, &["pg_advisory_lock", "pg_try_advisory_lock"]),
        example: "select pg_try_advisory_lock($1)",
    },
    Rule {
        why: "poolers: what is set stays for other clients, and who listens hears nothing",
        forbids: |sql| has_word(sql, &["set ", "listen ", "notify ", "prepare ", "declare "]),
        example: "set search_path = other",
    },
    Rule {
        why: "poolers: a search_path can be another client's",
        forbids: |sql| !every_table_has_its_schema(sql),
        example: "delete from session as t where t.id = $1",
    },
    Rule {
        why: "Citus, 0A000: a generic plan can't be forced, so nothing may ask for one",
        forbids: |sql| sql.contains("plan_cache_mode"),
        example: "select set_config('plan_cache_mode', 'force_generic_plan', true)",
    },
];

const MIGRATIONS: [Rule; 7] = [
    Rule {
        why: "Citus, 42601: CREATE INDEX stands alone in its string",
        forbids: |sql| sql.contains("create index") && sql.matches(';').count() > 1,
        example: "create index a on s (expiry); create index b on s (user_id);",
    },
    Rule {
        why: "Citus and partitions, 0A000: a unique index without the key of the parts",
        forbids: |sql| {
            let keys = sql.replace("id text primary key", "");
            has(&keys, &["unique", "primary key"])
        },
        example: "create unique index a on s (user_id);",
    },
    Rule {
        why: "Citus, 0A000: adding serial or identity",
        forbids: |sql| has(sql, &["serial", "generated ", "identity"]),
        example: "alter table s add column n serial;",
    },
    Rule {
        why: "Citus, 42P16: a foreign key to a local table",
        forbids: |sql| has(sql, &["references ", "foreign key"]),
        example: "alter table s add column user_id text references users;",
    },
    Rule {
        why: "Citus, XX000: triggers",
        forbids: |sql| has(sql, &["trigger", "create rule"]),
        example: "create trigger t after insert on s execute function f();",
    },
    Rule {
        why: "partitions, 0A000: an index can't be built concurrently on the parent",
        forbids: |sql| sql.contains("concurrently"),
        example: "create index concurrently a on s (expiry);",
    },
    Rule {
        why: "partitions, 22023: the parent has no storage parameters",
        forbids: |sql| has(sql, &["fillfactor", "with (", "autovacuum", "unlogged"]),
        example: "alter table s set (fillfactor = 80);",
    },
];

fn has(sql: &str, words: &[&str]) -> bool {
    words.iter().any(|word| sql.contains(word))
}

/// Whether the statement as a whole is one of these.
fn has_word(sql: &str, words: &[&str]) -> bool {
    words.iter().any(|word| sql.starts_with(word))
}

fn is_written(sql: &str) -> bool {
    has(sql, &["update ", "insert into ", "delete from "])
}

/// Or is a function, or a part of the statement that it names itself.
fn every_table_has_its_schema(sql: &str) -> bool {
    let sql = &sql.replace("distinct from ", "distinct of ");
    let tables = ["from ", "join ", "insert into ", "delete from "]
        .into_iter()
        .flat_map(|clause| sql.split(clause).skip(1))
        .chain(sql.starts_with("update ").then(|| &sql["update ".len()..]));
    let known = [
        "\"public\".",
        "\"tower_sessions\".",
        "pg_catalog.",
        "unnest(",
        "dead",
        "now()",
        "pg_index",
        "lateral (",
    ];
    tables
        .filter(|rest| !rest.starts_with("t."))
        .all(|rest| known.iter().any(|known| rest.starts_with(known)))
}

/// Name and text of each file, without comments.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("text");
            (path.display().to_string(), plain(&text))
        })
        .collect()
}

fn plain(sql: &str) -> String {
    let code = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    let words: Vec<_> = code.flat_map(str::split_whitespace).collect();
    words.join(" ").to_lowercase()
}

/// `migrate` executes it only on a connection without a pooler, and closes that connection.
const NEVER_POOLED: &str = "advisory_session_lock.sql";

fn assert_keeps(rules: &[Rule], folder: &str, at_least: usize) {
    let files = files(folder);
    assert!(files.len() >= at_least, "{} files", files.len());
    for (file, sql) in files
        .iter()
        .filter(|(file, _)| !file.ends_with(NEVER_POOLED))
    {
        for rule in rules {
            assert!(!(rule.forbids)(sql), "{file}: {}", rule.why);
        }
    }
}

#[test]
fn no_statement_holds_what_citus_or_another_refuses() {
    assert_keeps(&STATEMENTS, "src/store/sql", 25);
}

#[test]
fn no_migration_holds_what_citus_or_partitions_refuse() {
    assert_keeps(&MIGRATIONS, "migrations", 5);
}

#[test]
fn each_rule_finds_what_it_forbids() {
    for rule in STATEMENTS.iter().chain(&MIGRATIONS) {
        assert!((rule.forbids)(&plain(rule.example)), "{}", rule.why);
    }
}
