'use strict';

// connect-pg-simple, as in its readme. It creates the table with the first
// statement, so one is sent before the site opens.

const session = require('express-session');
const PgStore = require('connect-pg-simple')(session);
const { Pool } = require('pg');

async function openStore(options) {
  const pool = new Pool(options.connection);
  // Without a listener the first restart of Postgres ends the process.
  pool.on('error', () => {});
  const store = new PgStore({ pool, createTableIfMissing: true, ...options.store });
  await new Promise((resolve, reject) => {
    store.get('none', (error) => (error ? reject(error) : resolve()));
  });
  return store;
}

module.exports = openStore;
