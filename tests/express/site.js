'use strict';

// What the sites have in common, which is everything but the store.

const crypto = require('crypto');
const express = require('express');
const session = require('express-session');
const { Passport } = require('passport');
const host = require('../node/host');
const page = require('./page');

/** The handlers of users who sign in by their id alone. */
function passport() {
  const users = new Passport();
  users.serializeUser((user, done) => done(null, user.id));
  users.deserializeUser((id, done) => done(null, { id }));
  const restore = users.session();
  // Passport has no handler for requests without a session.
  return (req, res, next) => (req.session ? restore(req, res, next) : next());
}

/** Express calls it only if it takes four parameters. */
function fail(error, req, res, next) {
  console.error(error);
  if (!res.headersSent) res.status(500).end(String(error));
}

/** Listens with these options, and returns the port. */
function open(options, store) {
  const settings = { resave: false, saveUninitialized: false, ...options.session };
  if (options.idPrefix) {
    settings.genid = () => options.idPrefix + crypto.randomBytes(12).toString('hex');
  }
  const app = express();
  app.set('trust proxy', options.trustProxy === true);
  app.use(session({ store, secret: options.secret, ...settings }));
  app.use(passport());
  app.use(page);
  app.use(fail);
  return host.listen(app);
}

/** `openStore` makes a store of options. */
function serve(openStore) {
  return host.serve(async (options) => open(options, await openStore(options)));
}

module.exports = { serve };
