//! The list of a user's devices.

use axum_pg_session::{Device, SessionId, UserSession};
use maud::{Markup, html};
use time::{Duration, OffsetDateTime};

use super::Frame;

pub(crate) fn list(frame: &Frame, this: &SessionId, devices: &[UserSession]) -> Markup {
    frame.page(
        "Your devices",
        &html! {
            p { "You are signed in on these devices. Sign out of any that you don't recognize." }
            ul.devices {
                @for device in devices { (entry(frame, device.id() == this, device)) }
            }
            div.actions {
                @if devices.len() > 1 {
                    (frame.form("/devices/end-others", &html! {
                        button.danger { "Sign out everywhere else" }
                    }))
                }
                a.button href="/password" { "Change password" }
            }
        },
    )
}

fn entry(frame: &Frame, is_this: bool, session: &UserSession) -> Markup {
    let device = session.device();
    let label = device.and_then(Device::label);
    html! {
        li.card {
            div {
                h2 {
                    (label.unwrap_or("An unknown browser"))
                    @if is_this { " " span.badge { "this device" } }
                }
                p.hint.facts {
                    @if let Some(address) = device.and_then(Device::address) {
                        span { (address) }
                    }
                    span { "signed in " (ago(session.created())) }
                    span { "last seen " (ago(session.last_seen())) }
                }
            }
            @if is_this {
                (frame.form("/sign-out", &html! { button.quiet { "Sign out" } }))
            } @else {
                (frame.form("/devices/end", &html! {
                    input type="hidden" name="id" value=(session.id());
                    button.quiet { "Sign out" }
                }))
            }
        }
    }
}

fn ago(instant: Option<OffsetDateTime>) -> String {
    let Some(instant) = instant else {
        return "at an unknown time".to_owned();
    };
    let passed = OffsetDateTime::now_utc() - instant;
    let (count, unit) = match passed {
        passed if passed < Duration::MINUTE => return "just now".to_owned(),
        passed if passed < Duration::HOUR => (passed.whole_minutes(), "minute"),
        passed if passed < Duration::DAY => (passed.whole_hours(), "hour"),
        passed => (passed.whole_days(), "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}
