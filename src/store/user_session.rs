use std::fmt;

use time::OffsetDateTime;

use crate::{
    Device, SessionId, expiry,
    format::Format,
    id::RowId,
    store::{instant::Instant, list::ListPosition},
};

/// One session of a user, as [`UserSessions::list`](crate::UserSessions::list) found it.
///
/// ```
/// use axum_pg_session::{Device, Login, PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let ada = TestVisitor::of(&PgSessionLayer::new(store.clone()));
/// let device = Device::new().label("my phone");
/// ada.given(|session| session.login(Login::new("ada").device(device))).await?;
///
/// let listed = store.user("ada").list().await?;
/// let labels: Vec<_> = listed.iter().filter_map(|session| session.device()?.get_label()).collect();
/// assert_eq!(labels, ["my phone"]);
/// assert_eq!(Some(listed[0].id()), ada.session().await?.id().as_ref());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct UserSession {
    id: SessionId,
    position: ListPosition,
    created: Option<OffsetDateTime>,
    last_seen: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    device: Option<Device>,
}

/// The columns of `user_list.sql`.
pub(super) type Listed = (
    String,
    Instant,
    Option<Instant>,
    Option<Instant>,
    Option<String>,
);

impl UserSession {
    pub(super) fn of((id, expires, created, seen, device): Listed, format: &dyn Format) -> Self {
        let at = |instant: Option<Instant>| expiry::instant(instant?.0);
        let id = format.handle(&RowId::from(id));
        Self {
            position: ListPosition::new(created, id.clone()),
            id,
            created: at(created),
            last_seen: at(seen),
            expires_at: at(Some(expires)),
            device: device.and_then(|text| serde_json::from_str(&text).ok()),
        }
    }

    /// The public handle, for [`UserSessions::destroy`](crate::UserSessions::destroy). It opens nothing, so
    /// it can be in a page or an address.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Where a list goes on behind this session, for
    /// [`ListSessions::after`](crate::ListSessions::after).
    #[must_use]
    pub fn position(&self) -> ListPosition {
        self.position.clone()
    }

    /// When the user signed in, or signed in again. `None` where the table has
    /// no column `created`.
    #[must_use]
    pub fn created(&self) -> Option<OffsetDateTime> {
        self.created
    }

    /// When a request last kept the session alive, as precise as the layer's
    /// [`touch_interval`](crate::PgSessionLayer::touch_interval): it may have
    /// been seen that much later. `None` where the table has no column
    /// `last_seen` (migration 0005).
    #[must_use]
    pub fn last_seen(&self) -> Option<OffsetDateTime> {
        self.last_seen
    }

    /// When it ends if no request comes. `None` for an infinite life.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }

    /// What the [`login`](crate::Login::device) remembered, if anything.
    #[must_use]
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }
}

impl fmt::Debug for UserSession {
    /// Without what is remembered of the device, which is personal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSession")
            .field("id", &self.id)
            .field("created", &self.created)
            .field("last_seen", &self.last_seen)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
