//! The columns that a table must have for each feature. It sends no query.

use crate::{
    Error, ErrorKind, Expiry, Login,
    login::SessionLimit,
    store::table::{columns::Columns, name::TableName},
};

impl Columns {
    pub(in crate::store) fn check_users(&self, name: &TableName) -> Result<(), Error> {
        self.need("the sessions of a user need", "user_id", "0002", name)
    }

    pub(in crate::store) fn check_login(
        &self,
        login: &Login,
        name: &TableName,
    ) -> Result<(), Error> {
        self.need("a login needs", "user_id", "0002", name)?;
        if login.has_device() {
            self.need("to remember a device needs", "device", "0005", name)?;
        }
        if login.external().is_some() {
            self.check_external_id(name)?;
        }
        self.check_expiry(login.end().unwrap_or(Expiry::Default), name)
    }

    pub(in crate::store) fn check_external_id(&self, name: &TableName) -> Result<(), Error> {
        self.need("an external id needs", "external_id", "0006", name)
    }

    /// The limit counts a user's sessions, and finds the oldest by their login.
    pub(in crate::store) fn check_limit(
        &self,
        limit: Option<SessionLimit>,
        name: &TableName,
    ) -> Result<(), Error> {
        if limit.is_none() {
            return Ok(());
        }
        ["user_id", "created"]
            .into_iter()
            .try_for_each(|column| self.need("a limit of sessions needs", column, "0002", name))
    }

    pub(in crate::store) fn check_expiry(
        &self,
        expiry: Expiry,
        name: &TableName,
    ) -> Result<(), Error> {
        match expiry {
            Expiry::Timeouts { .. } => self.check_created(name),
            _ => Ok(()),
        }
    }

    pub(in crate::store) fn check_created(&self, name: &TableName) -> Result<(), Error> {
        self.need("an absolute timeout needs", "created", "0002", name)
    }

    fn need(
        &self,
        what: &str,
        column: &str,
        migration: &str,
        name: &TableName,
    ) -> Result<(), Error> {
        if self.has(column) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Setup,
            format!("{what} the column {column} in the table {name} (migration {migration})"),
        ))
    }
}
