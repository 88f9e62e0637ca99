//! A role with few rights, which both servers can sign in as.

use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;

use super::{Site, Table, connection};

pub(crate) struct Role {
    name: String,
    url: String,
    rows: Table,
}

impl Site {
    /// A role of this test's own, with these rights on the table.
    pub(crate) async fn role_that_may(&self, rights: &str, rows: Table) -> Role {
        let url = self.url().to_owned();
        let options: PgConnectOptions = url.parse().expect("a URL");
        // Roles belong to the whole server, and no two databases have the same name.
        let name = format!("of_{}", options.get_database().expect("a name"));
        rows.execute(&format!(
            "CREATE ROLE {name} LOGIN; GRANT {rights} ON SESSIONS TO {name}"
        ))
        .await;
        Role { name, url, rows }
    }
}

impl Role {
    /// For pg.
    pub(crate) fn connection(&self) -> Value {
        let mut parts = connection::parts(&self.url).expect("a URL");
        parts["user"] = json!(self.name);
        parts
    }

    /// For sqlx.
    pub(crate) fn options(&self) -> PgConnectOptions {
        let options: PgConnectOptions = self.url.parse().expect("a URL");
        options.username(&self.name)
    }

    pub(crate) async fn drop(self) {
        let name = &self.name;
        self.rows
            .execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}"))
            .await;
    }
}
