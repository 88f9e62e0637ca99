//! The statements, rendered for one table. It sends none of them, and doesn't know when they are
//! sent.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use crate::{
    document::Layout,
    format::{Format, OldId},
    store::{
        sql::{Pooling, Sizes, Sql},
        table::{
            clock::Clock,
            columns::{Columns, Document},
            name::TableName,
        },
    },
};

/// A table that was inspected, and the statements for it.
#[derive(Clone, Debug)]
pub(crate) struct Statements {
    pub(crate) name: TableName,
    pub(crate) columns: Columns,
    pub(in crate::store) clock: Arc<Clock>,
    pub(crate) layout: &'static dyn Layout,
    pub(crate) old_id: OldId,
    /// Whether a row's user is only in its document.
    pub(crate) has_user_in_document: bool,
    pub(crate) load: Sizes,
    pub(crate) insert: Sizes,
    pub(crate) insert_user: Sizes,
    pub(crate) save: Sizes,
    pub(crate) save_user: Sql,
    pub(crate) touch: Sizes,
    pub(crate) destroy: Sizes,
    pub(crate) destroy_unread: Sql,
    /// Locks a row and reads what a load reads.
    pub(crate) lock: Sql,
    pub(crate) cycle: CycleStatements,
    pub(crate) takeover: TakeoverStatements,
    pub(crate) users: UserStatements,
    pub(crate) external: ExternalStatements,
    pub(crate) reap: Sql,
    pub(crate) reap_find: Sql,
    pub(crate) reap_lock: Sql,
    pub(crate) reap_some: Sql,
    pub(crate) reap_unread: Sql,
    pub(crate) find: Sql,
    pub(crate) watch: Sql,
    #[cfg(feature = "testing")]
    pub(crate) age: Sql,
}

/// The statements for a new id.
#[derive(Clone, Debug)]
pub(crate) struct CycleStatements {
    pub(crate) lock: Sql,
    pub(crate) copy: Sql,
    pub(crate) forward: Sql,
    pub(crate) undo: Sql,
    /// Lets the transaction insert an id that has a tombstone.
    pub(crate) restores: Sql,
    /// Reads the whole row, and inserts it again with the application's columns.
    pub(crate) row_as_text: Sql,
    pub(crate) restore_row: Sql,
    pub(crate) login_lock: Sql,
    pub(crate) login_copy: Sql,
    pub(crate) login_insert: Sql,
}

impl CycleStatements {
    fn new(statement: impl Fn(&str) -> Sql) -> Self {
        Self {
            lock: statement(include_str!("../sql/cycle_lock.sql")),
            copy: statement(include_str!("../sql/cycle_copy.sql")),
            forward: statement(include_str!("../sql/cycle_forward.sql")),
            undo: statement(include_str!("../sql/undo.sql")),
            restores: statement(include_str!("../sql/restores.sql")),
            row_as_text: statement(include_str!("../sql/row_as_text.sql")),
            restore_row: statement(include_str!("../sql/restore_row.sql")),
            login_lock: statement(include_str!("../sql/advisory_lock.sql")),
            login_copy: statement(include_str!("../sql/login_copy.sql")),
            login_insert: statement(include_str!("../sql/login_insert.sql")),
        }
    }
}

/// The statements for the table of another system, which each layer can name.
#[derive(Clone, Debug)]
pub(crate) struct TakeoverStatements {
    ours: TableName,
    /// For the columns of our table, and without the names of both.
    read: Arc<str>,
    pooling: Pooling,
}

impl TakeoverStatements {
    pub(in crate::store) fn read(&self, name: &TableName) -> Sql {
        self.of(name, &self.read)
    }

    pub(in crate::store) fn delete(&self, name: &TableName) -> Sql {
        self.of(name, include_str!("../sql/takeover_delete.sql"))
    }

    fn of(&self, name: &TableName, sql: &str) -> Sql {
        Sql::new(safe(self.ours.render_beside(name, sql)), self.pooling)
    }
}

/// The statements for the sessions of a user, and of all users.
#[derive(Clone, Debug)]
pub(crate) struct UserStatements {
    pub(crate) list: Sql,
    pub(crate) count: Sql,
    pub(crate) some: Sql,
    pub(crate) destroy: Sql,
    pub(crate) everyone: Sql,
    pub(crate) undated: Sql,
}

impl UserStatements {
    fn new(statement: impl Fn(&str) -> Sql) -> Self {
        Self {
            list: statement(include_str!("../sql/user_list.sql")),
            count: statement(include_str!("../sql/user_count.sql")),
            some: statement(include_str!("../sql/user_some.sql")),
            destroy: statement(include_str!("../sql/user_destroy.sql")),
            everyone: statement(include_str!("../sql/everyone.sql")),
            undated: statement(include_str!("../sql/undated.sql")),
        }
    }
}

/// The statements for the sessions of an external id.
#[derive(Clone, Debug)]
pub(crate) struct ExternalStatements {
    pub(crate) some: Sql,
    pub(crate) destroy: Sql,
}

impl ExternalStatements {
    fn new(statement: impl Fn(&str) -> Sql) -> Self {
        Self {
            some: statement(include_str!("../sql/external_some.sql")),
            destroy: statement(include_str!("../sql/external_destroy.sql")),
        }
    }
}

/// The statements for one row and for many.
macro_rules! both {
    ($sizes:ident, $name:literal) => {
        $sizes(
            include_str!(concat!("../sql/", $name, "_one.sql")),
            include_str!(concat!("../sql/", $name, ".sql")),
        )
    };
}

impl Statements {
    pub(in crate::store) fn new(
        name: TableName,
        columns: Columns,
        clock: Arc<Clock>,
        format: &dyn Format,
        pooling: Pooling,
    ) -> Self {
        // The name comes last, because it can read like a part of a statement.
        let unnamed = |sql: &str| format.columns().render(&columns.render(sql));
        let statement = |sql: &str| Sql::new(safe(name.render(&unnamed(sql))), pooling);
        let sizes = |one, many| Sizes {
            one: statement(one),
            many: statement(many),
        };
        Self {
            load: both!(sizes, "load"),
            insert: both!(sizes, "insert"),
            insert_user: both!(sizes, "insert_user"),
            save: both!(sizes, "save"),
            save_user: statement(include_str!("../sql/save_user.sql")),
            touch: both!(sizes, "touch"),
            destroy: both!(sizes, "destroy"),
            destroy_unread: statement(include_str!("../sql/destroy_unread.sql")),
            lock: statement(include_str!("../sql/lock.sql")),
            cycle: CycleStatements::new(statement),
            takeover: TakeoverStatements {
                ours: name.clone(),
                read: unnamed(include_str!("../sql/takeover_read.sql")).into(),
                pooling,
            },
            users: UserStatements::new(statement),
            external: ExternalStatements::new(statement),
            reap: statement(include_str!("../sql/reap.sql")),
            reap_find: statement(include_str!("../sql/reap_find.sql")),
            reap_lock: statement(include_str!("../sql/reap_lock.sql")),
            reap_some: statement(include_str!("../sql/reap_some.sql")),
            reap_unread: statement(include_str!("../sql/reap_unread.sql")),
            find: statement(include_str!("../sql/find.sql")),
            watch: statement(include_str!("../sql/watch.sql")),
            #[cfg(feature = "testing")]
            age: statement(include_str!("../sql/age.sql")),
            layout: format.layout(),
            old_id: format.old_id(),
            has_user_in_document: format.layout().user().is_some() && !columns.has_user_id(),
            name,
            columns,
            clock,
        }
    }

    /// The same table, with statements for a transaction of the application.
    pub(in crate::store) fn for_others(&self) -> Self {
        let mut table = self.clone();
        let (users, cycle) = (&mut table.users, &mut table.cycle);
        for sql in [&mut users.some, &mut users.destroy, &mut cycle.lock] {
            *sql = sql.for_others();
        }
        table
    }

    /// What `sha256(json_send(session))` returns for this text.
    pub(crate) fn digest(&self, text: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        if self.columns.document == Document::Jsonb {
            // jsonb_send writes its version before the text.
            digest.update([1]);
        }
        digest.update(text);
        digest.finalize().into()
    }

    /// Whether the table stores a document letter by letter as it was sent.
    pub(crate) fn keeps_the_text(&self) -> bool {
        self.columns.document == Document::Json
    }
}

/// Identifiers are quoted and values are bound, so no input of a client is part of the SQL.
fn safe(sql: String) -> SqlStr {
    AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str()
}
