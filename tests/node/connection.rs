//! How Node finds a database.

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

/// The parts of a URL, as every version of pg takes them, for a socket as for
/// a port.
///
/// # Errors
///
/// When it is no URL.
pub(crate) fn parts(url: &str) -> Result<Value, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let socket = options.get_socket();
    let socket = socket.map(|folder| folder.display().to_string());
    Ok(json!({
        "host": socket.unwrap_or_else(|| options.get_host().to_owned()),
        "port": options.get_port(),
        "user": options.get_username(),
        "password": options.to_url_lossy().password(),
        "database": options.get_database(),
    }))
}
