//! The shop, with the basket.

use maud::{Markup, html};

use super::Frame;
use crate::basket::{Basket, Item};

pub(crate) fn shop(frame: &Frame, basket: &Basket) -> Markup {
    frame.page(
        "What we have today",
        &html! {
            ul.goods { @for item in Item::ALL { li.card { (goods(frame, item)) } } }
            section.card {
                h2 { "Your basket" }
                @if basket.is_empty() {
                    p.hint { "Nothing yet. What you put in stays when you sign in." }
                } @else {
                    ul.basket {
                        @for (item, count) in basket {
                            li { span { (item.name()) } span.count { (count) } }
                        }
                    }
                }
            }
        },
    )
}

fn goods(frame: &Frame, item: Item) -> Markup {
    let button = html! {
        input type="hidden" name="item" value=(item.value());
        button aria-label={ "Add " (item.name()) } { "Add" }
    };
    html! {
        div {
            h2 { (item.name()) }
            p.hint { (item.price()) }
        }
        (frame.form("/basket", &button))
    }
}
