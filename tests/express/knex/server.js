'use strict';

const { ConnectSessionKnexStore } = require('connect-session-knex');
const makeKnex = require('knex');

async function openStore({ connection, store: { schemaName = 'public', ...settings } }) {
  const pool = { min: 0, max: 10 };
  const knex = makeKnex({ client: 'pg', connection, pool, searchPath: [schemaName] });
  const store = new ConnectSessionKnexStore({ knex, ...settings });
  await store.ready;
  return store;
}

require('../site').serve(openStore);
