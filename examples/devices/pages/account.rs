//! The forms of an account.

use maud::{Markup, html};

use super::Frame;

pub(crate) fn sign_up(frame: &Frame, refusal: Option<&str>) -> Markup {
    let fields = html! {
        (name_field())
        (password_field("Password", "new-password"))
        p.hint { "Eight characters or more." }
        button { "Sign up" }
    };
    let content = html! {
        (card(frame, "/sign-up", refusal, &fields))
        p.narrow { "You have an account? " a href="/sign-in" { "Sign in" } }
    };
    frame.page("Sign up", &content)
}

pub(crate) fn sign_in(frame: &Frame, refusal: Option<&str>) -> Markup {
    let fields = html! {
        (name_field())
        (password_field("Password", "current-password"))
        label.choice {
            input type="checkbox" name="remember" value="yes";
            "Remember me on this device"
        }
        button { "Sign in" }
    };
    let content = html! {
        (card(frame, "/sign-in", refusal, &fields))
        p.narrow { "You are new here? " a href="/sign-up" { "Sign up" } }
    };
    frame.page("Sign in", &content)
}

/// Before a sensitive step, if the login is not recent.
pub(crate) fn confirm(frame: &Frame, refusal: Option<&str>) -> Markup {
    let fields = html! {
        (password_field("Your password", "current-password"))
        button { "Continue" }
    };
    let content = html! {
        p { "Before you change your password, please type the one that you have now." }
        (card(frame, "/confirm", refusal, &fields))
    };
    frame.page("Is it you?", &content)
}

pub(crate) fn new_password(frame: &Frame, refusal: Option<&str>) -> Markup {
    let fields = html! {
        (password_field("New password", "new-password"))
        p.hint { "Eight characters or more. All other devices are signed out." }
        button { "Change password" }
    };
    frame.page(
        "A new password",
        &card(frame, "/password", refusal, &fields),
    )
}

fn card(frame: &Frame, action: &str, refusal: Option<&str>, fields: &Markup) -> Markup {
    let form = html! {
        @if let Some(refusal) = refusal { p.refusal role="alert" { (refusal) } }
        (fields)
    };
    html! { section.card.narrow { (frame.form(action, &form)) } }
}

fn name_field() -> Markup {
    html! {
        label {
            "Name"
            input name="name" autocomplete="username" autocapitalize="none" required maxlength="32";
        }
    }
}

/// `purpose` is the `autocomplete` value for browsers and password managers.
fn password_field(label: &str, purpose: &str) -> Markup {
    html! {
        label {
            (label)
            input type="password" name="password" autocomplete=(purpose) required minlength="8" maxlength="256";
        }
    }
}
