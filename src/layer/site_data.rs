//! The types of the header `Clear-Site-Data`. This module only formats the header.

use http::HeaderValue;

/// Data that a browser should clear when a user signs out, for
/// [`PgSessionLayer::clear_site_data`](crate::PgSessionLayer::clear_site_data):
/// the types of the header `Clear-Site-Data` (W3C, section 3.1).
///
/// ```
/// use axum::{Router, body::Body, http::Request, routing::post};
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, Session, ClearSiteData};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let layer = PgSessionLayer::new(store).clear_site_data([ClearSiteData::Cache, ClearSiteData::Storage]);
/// let app = Router::new()
///     .route("/", post(async |session: Session| session.logout()))
///     .layer(layer);
/// let response = app.oneshot(Request::post("/").body(Body::empty())?).await?;
/// assert_eq!(response.headers()["clear-site-data"], r#""cache", "storage""#);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClearSiteData {
    /// Cached pages and files of this origin, including those of the back button.
    Cache,
    /// All cookies of the site and its subdomains, also those of other applications.
    Cookies,
    /// Data that scripts stored for this origin.
    Storage,
    /// All of these, and the types of later versions of the header.
    All,
}

impl ClearSiteData {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cache => r#""cache""#,
            Self::Cookies => r#""cookies""#,
            Self::Storage => r#""storage""#,
            Self::All => r#""*""#,
        }
    }
}

/// The value of the header, or `None` if there are no types.
pub(crate) fn header_value(data: impl IntoIterator<Item = ClearSiteData>) -> Option<HeaderValue> {
    let types: Vec<_> = data.into_iter().map(ClearSiteData::as_str).collect();
    if types.is_empty() {
        return None;
    }
    Some(HeaderValue::from_str(&types.join(", ")).expect("visible ASCII"))
}
