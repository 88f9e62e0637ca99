//! The frame of every page. The templates escape all values.

pub(crate) mod account;
pub(crate) mod devices;
pub(crate) mod shop;

use axum_pg_session::Session;
use maud::{DOCTYPE, Markup, html};

use crate::{basket, csrf, error::PageError, flash};

/// The parts of a session that every page shows.
pub(crate) struct Frame {
    user: Option<String>,
    token: String,
    message: Option<String>,
    in_basket: u32,
}

impl Frame {
    /// Removes the message from the session, because the page shows it.
    pub(crate) fn of(session: &Session) -> Result<Self, PageError> {
        Ok(Self {
            user: session.user_id(),
            token: csrf::token(session)?,
            message: flash::take(session)?,
            in_basket: basket::of(session)?.values().sum(),
        })
    }

    fn page(&self, title: &str, content: &Markup) -> Markup {
        document(
            title,
            &html! {
                header {
                    a.brand href="/" { "Corner shop" }
                    nav {
                        @if self.in_basket > 0 {
                            a href="/" { "Basket " span.count { (self.in_basket) } }
                        }
                        @match &self.user {
                            Some(user) => {
                                a href="/devices" { (user) }
                                (self.form("/sign-out", &html! { button.quiet { "Sign out" } }))
                            }
                            None => {
                                a href="/sign-in" { "Sign in" }
                                a href="/sign-up" { "Sign up" }
                            }
                        }
                    }
                }
                main {
                    @if let Some(message) = &self.message {
                        p.message role="status" { (message) }
                    }
                    h1 { (title) }
                    (content)
                }
            },
        )
    }

    /// The only function that creates forms, so that all have the token.
    fn form(&self, action: &str, content: &Markup) -> Markup {
        html! {
            form method="post" action=(action) {
                input type="hidden" name=(csrf::FIELD) value=(self.token);
                (content)
            }
        }
    }
}

/// A page without a session.
pub(crate) fn failure(sentence: &str) -> Markup {
    document(
        "Sorry",
        &html! {
            header { a.brand href="/" { "Corner shop" } }
            main {
                h1 { "Sorry" }
                p { (sentence) }
            }
        },
    )
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Corner shop" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
            }
            body { (body) }
        }
    }
}
