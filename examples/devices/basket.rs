//! The basket, which visitors can fill before they sign in.

use std::collections::BTreeMap;

use axum::{extract::Form, response::Redirect};
use axum_pg_session::{Error, Session};
use maud::Markup;
use serde::{Deserialize, Serialize};

use crate::{
    error::PageError,
    flash,
    pages::{Frame, shop as pages},
};

const KEY: &str = "basket";
const MAX_OF_ONE: u32 = 99;

/// The goods of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Item {
    Tea,
    Honey,
    Bread,
}

pub(crate) type Basket = BTreeMap<Item, u32>;

#[derive(Deserialize)]
pub(crate) struct Chosen {
    item: Item,
}

pub(crate) fn of(session: &Session) -> Result<Basket, Error> {
    Ok(session.get(KEY)?.unwrap_or_default())
}

pub(crate) async fn shop(session: Session) -> Result<Markup, PageError> {
    let basket = of(&session)?;
    Ok(pages::shop(&Frame::of(&session)?, &basket))
}

/// If two tabs add an item at the same time, both items are in the basket, because the closure runs
/// again on the stored basket.
pub(crate) async fn add(
    session: Session,
    Form(Chosen { item }): Form<Chosen>,
) -> Result<Redirect, PageError> {
    session.update(KEY, move |basket: Option<Basket>| {
        let mut basket = basket.unwrap_or_default();
        let count = basket.entry(item).or_default();
        *count = (*count + 1).min(MAX_OF_ONE);
        basket
    })?;
    flash::show(&session, format!("{} is in your basket.", item.name()))?;
    Ok(Redirect::to("/"))
}

impl Item {
    pub(crate) const ALL: [Self; 3] = [Self::Tea, Self::Honey, Self::Bread];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tea => "Green tea",
            Self::Honey => "Forest honey",
            Self::Bread => "Rye bread",
        }
    }

    /// The value in forms.
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Tea => "tea",
            Self::Honey => "honey",
            Self::Bread => "bread",
        }
    }

    pub(crate) fn price(self) -> &'static str {
        match self {
            Self::Tea => "€ 7.50",
            Self::Honey => "€ 6.00",
            Self::Bread => "€ 4.20",
        }
    }
}
