//! The forms of an account.

use maud::{Markup, html};

use super::Frame;

pub(crate) fn sign_up(frame: &Frame, refusal: Option<&str>) -> Markup {
    let form = frame.form(
        "/sign-up",
        &html! {
            (refused(refusal))
            (name_field())
            (password_field("Password", "new-password"))
            p.hint { "Eight characters or more." }
            button { "Sign up" }
        },
    );
    frame.page(
        "Sign up",
        &html! {
            section.card.narrow { (form) }
            p.narrow { "You have an account? " a href="/sign-in" { "Sign in" } }
        },
    )
}

pub(crate) fn sign_in(frame: &Frame, refusal: Option<&str>) -> Markup {
    let form = frame.form(
        "/sign-in",
        &html! {
            (refused(refusal))
            (name_field())
            (password_field("Password", "current-password"))
            label.choice {
                input type="checkbox" name="remember" value="yes";
                "Remember me on this device"
            }
            button { "Sign in" }
        },
    );
    frame.page(
        "Sign in",
        &html! {
            section.card.narrow { (form) }
            p.narrow { "You are new here? " a href="/sign-up" { "Sign up" } }
        },
    )
}

/// Before a sensitive step, where the password was typed long ago.
pub(crate) fn confirm(frame: &Frame, refusal: Option<&str>) -> Markup {
    let form = frame.form(
        "/confirm",
        &html! {
            (refused(refusal))
            (password_field("Your password", "current-password"))
            button { "Continue" }
        },
    );
    frame.page(
        "Is it you?",
        &html! {
            p { "Before you change your password, please type the one that you have now." }
            section.card.narrow { (form) }
        },
    )
}

pub(crate) fn new_password(frame: &Frame, refusal: Option<&str>) -> Markup {
    let form = frame.form(
        "/password",
        &html! {
            (refused(refusal))
            (password_field("New password", "new-password"))
            p.hint { "Eight characters or more. All other devices are signed out." }
            button { "Change password" }
        },
    );
    frame.page("A new password", &html! { section.card.narrow { (form) } })
}

fn refused(refusal: Option<&str>) -> Markup {
    html! {
        @if let Some(refusal) = refusal { p.refusal role="alert" { (refusal) } }
    }
}

fn name_field() -> Markup {
    html! {
        label {
            "Name"
            input name="name" autocomplete="username" autocapitalize="none" required maxlength="32";
        }
    }
}

/// What browsers and their password managers do with it is up to `purpose`.
fn password_field(label: &str, purpose: &str) -> Markup {
    html! {
        label {
            (label)
            input type="password" name="password" autocomplete=(purpose) required minlength="8" maxlength="256";
        }
    }
}
