'use strict';

// The site as it was: Express with express-session and connect-pg-simple. It
// prints its port, and ends with its input.

const express = require('express');
const session = require('express-session');
const PgStore = require('connect-pg-simple')(session);
const { Pool } = require('pg');

const { connection, table, keys } = JSON.parse(process.env.SITE);

const page = (trail) => `<!doctype html>
<title>The old page</title>
<h1>The old page, by Express</h1>
<p>This session was at: ${trail.join(', ')}</p>
<p><a href="/">the old page</a> <a href="/new">the new page</a></p>
<form method="post" action="/logout"><button>Sign out here</button></form>
`;

const pool = new Pool(connection);
// Without a listener the first restart of Postgres ends the process.
pool.on('error', console.error);

const app = express();
app.use(session({
  store: new PgStore({ pool, tableName: table }),
  secret: keys,
  resave: false,
  saveUninitialized: false,
}));

app.get('/', (req, res) => {
  req.session.trail = [...(req.session.trail || []), 'Express'];
  res.send(page(req.session.trail));
});

app.post('/logout', (req, res, next) => {
  req.session.destroy((error) => (error ? next(error) : res.redirect(303, '/')));
});

const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('close', () => process.exit());
