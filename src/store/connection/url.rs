//! The servers that a URL names. It only reads the URL and `PGSSLMODE`, and connects to nothing.

use std::env;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::{Error, ErrorKind};

#[derive(Debug)]
pub(in crate::store) enum Hosts {
    One(Box<PgConnectOptions>),
    /// One of them takes writes. A failover can change which.
    Several(Vec<PgConnectOptions>),
}

/// The parts of a URL that may name several servers, as libpq reads them:
/// `postgres://user@one:5432,two:5433/database?target_session_attrs=read-write`,
/// or with `host` and `port` among the parameters.
///
/// Parts that sqlx would misread are refused or rewritten: characters that end a password early,
/// and `channel_binding`.
struct Parts<'u> {
    scheme: &'u str,
    user: Option<&'u str>,
    hosts: Vec<&'u str>,
    path: &'u str,
    parameters: Vec<(&'u str, &'u str)>,
}

impl Hosts {
    /// # Errors
    ///
    /// If the URL is not one of Postgres, or asks for a server that takes no writes.
    pub(in crate::store) fn parse(url: &str) -> Result<Self, Error> {
        let Some(parts) = Parts::of(url) else {
            return Err(Error::not_a_url("it is not of the form scheme://…"));
        };
        // sqlx accepts the URL of any other database too.
        if !matches!(
            &*parts.scheme.to_ascii_lowercase(),
            "postgres" | "postgresql"
        ) {
            return Err(Error::not_a_url("its scheme is not postgres"));
        }
        check_encoding(url, &parts)?;
        parts.check_key()?;
        let urls = parts.urls()?;
        let options = urls.iter().map(|url| url.parse().map_err(Error::not_a_url));
        let options: Vec<PgConnectOptions> = options.collect::<Result<_, _>>()?;
        parts.check_channel_binding(&options)?;
        parts.check_target(options.len())?;
        match <[_; 1]>::try_from(options) {
            Ok([one]) => Ok(Self::One(Box::new(one))),
            Err(several) => Ok(Self::Several(several)),
        }
    }
}

impl<'u> Parts<'u> {
    fn of(url: &'u str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
        Some(Self {
            scheme,
            user,
            hosts: hosts.split(',').collect(),
            path,
            parameters: parameters
                .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
                .collect(),
        })
    }

    /// The values of a parameter, if it is given.
    fn list(&self, name: &str) -> Option<Vec<String>> {
        let mut values = self.parameters.iter().filter(|(key, _)| *key == name);
        let (_, value) = values.next_back()?;
        let value = value.replace("%2C", ",").replace("%2c", ",");
        Some(value.split(',').map(str::to_owned).collect())
    }

    /// A URL for each server.
    fn urls(&self) -> Result<Vec<String>, Error> {
        let (hosts, ports) = (self.list("host"), self.list("port"));
        let number = hosts.as_ref().map_or(self.hosts.len(), Vec::len);
        let ports = ports.unwrap_or_default();
        if ports.len() > 1 && ports.len() != number {
            return Err(Error::not_a_url("it names more or fewer ports than hosts"));
        }
        let urls = (0..number).map(|index| {
            let host = hosts.as_ref().map(|hosts| hosts[index].as_str());
            let port = ports.get(index).or(ports.first());
            self.url(index, host, port.map(String::as_str))
        });
        Ok(urls.collect())
    }

    fn url(&self, index: usize, host: Option<&str>, port: Option<&str>) -> String {
        let mut url = format!("{}://", self.scheme);
        let authority = self.hosts.get(index).unwrap_or(&self.hosts[0]);
        let login = self.login_of_default_host(authority);
        if let (Some(user), false) = (self.user, authority.is_empty()) {
            url += &format!("{user}@");
        }
        url += authority;
        url += self.path;
        // An address among the parameters has no brackets.
        let address = self.hosts.get(index).and_then(|host| bare_address(host));
        let host = host.map(|host| bare_address(host).unwrap_or(host));
        let environment = env::var("PGSSLMODE").ok();
        let own = [
            ("host", host.or(address)),
            ("port", port),
            (
                "sslmode",
                self.sslmode_for_channel_binding(environment.as_deref()),
            ),
        ];
        let own = own
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let others = self.parameters.iter().copied().filter(|(key, _)| {
            !matches!(
                *key,
                "host" | "port" | "target_session_attrs" | CHANNEL_BINDING
            )
        });
        let login = login.iter().map(|(key, value)| (*key, value.as_str()));
        for (place, (key, value)) in login.chain(others).chain(own).enumerate() {
            let separator = if place == 0 { '?' } else { '&' };
            url += &format!("{separator}{key}={value}");
        }
        url
    }

    /// Moves the user and the password to the parameters if the URL has no host. libpq reads
    /// `postgres://user@/site` and takes the host from the environment or a parameter; sqlx
    /// refuses it. In a parameter a plus would mean a space, so it is encoded.
    fn login_of_default_host(&self, host: &str) -> Vec<(&'static str, String)> {
        let Some(login) = self.user.filter(|_| host.is_empty()) else {
            return Vec::new();
        };
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let parts = [("user", Some(user)), ("password", password)];
        let encoded = |text: &str| text.replace('+', "%2B").replace('&', "%26");
        let given = parts.into_iter();
        given
            .filter_map(|(key, value)| Some((key, encoded(value?))))
            .collect()
    }

    fn last(&self, names: &[&str]) -> Option<&'u str> {
        let mut values = self.parameters.iter().rev();
        let (_, value) = values.find(|(key, _)| names.contains(key))?;
        Some(value)
    }

    fn requires_channel_binding(&self) -> bool {
        self.last(&[CHANNEL_BINDING])
            .is_some_and(|value| value.eq_ignore_ascii_case("require"))
    }

    /// The mode to add if the URL requires channel binding and has no `sslmode`. The connection
    /// must be encrypted then. A stronger mode in `PGSSLMODE` is kept, because a mode in the URL
    /// would override it.
    fn sslmode_for_channel_binding(&self, environment: Option<&str>) -> Option<&'static str> {
        let is_stronger = matches!(
            environment.map(str::parse),
            Some(Ok(PgSslMode::VerifyCa | PgSslMode::VerifyFull))
        );
        let is_unsaid = self.last(&SSLMODE).is_none() && !is_stronger;
        (self.requires_channel_binding() && is_unsaid).then_some("require")
    }

    /// Checks that a URL that requires channel binding is at least encrypted. Channel binding
    /// proves that the server that knows the password is the end of the encrypted connection.
    /// sqlx doesn't support it, but a verified certificate proves the same. The mode is the one
    /// that sqlx read from the URL and `PGSSLMODE`.
    fn check_channel_binding(&self, options: &[PgConnectOptions]) -> Result<(), Error> {
        let mode = options.first().map(PgConnectOptions::get_ssl_mode);
        let Some(mode) = mode.filter(|_| self.requires_channel_binding()) else {
            return Ok(());
        };
        match mode {
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => Err(Error::new(
                ErrorKind::Setup,
                "channel_binding=require needs an encrypted connection; set sslmode=require or \
                 stronger",
            )),
            PgSslMode::VerifyFull => Ok(()),
            PgSslMode::Require | PgSslMode::VerifyCa => {
                tracing::warn!(
                    "channel_binding=require of the URL has no effect: set sslmode=verify-full, \
                     by which the server is authenticated too"
                );
                Ok(())
            }
        }
    }

    /// sqlx logs each parameter that it does not know, with its value.
    fn check_key(&self) -> Result<(), Error> {
        match self.last(&["sslpassword"]) {
            Some(_) => Err(Error::new(
                ErrorKind::Setup,
                "`sslpassword` is not supported; use a key in `sslkey` that has no password",
            )),
            None => Ok(()),
        }
    }

    fn check_target(&self, servers: usize) -> Result<(), Error> {
        let wanted = self.list("target_session_attrs").unwrap_or_default();
        match wanted.join(",").as_str() {
            "" | "read-write" | "primary" => Ok(()),
            "any" if servers == 1 => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Setup,
                "sessions are written, so target_session_attrs must be read-write or primary",
            )),
        }
    }
}

const CHANNEL_BINDING: &str = "channel_binding";
/// The names that sqlx accepts.
const SSLMODE: [&str; 2] = ["sslmode", "ssl-mode"];

/// The address of `[::1]:5432`.
fn bare_address(host: &str) -> Option<&str> {
    let (address, _) = host.strip_prefix('[')?.split_once(']')?;
    Some(address)
}

/// Whether a value of this parameter may have an `@` in it.
fn is_text(parameter: &str) -> bool {
    let names = [
        "user",
        "password",
        "dbname",
        "application_name",
        "host",
        "sslrootcert",
        "sslcert",
        "sslkey",
    ];
    names.contains(&parameter) || parameter.starts_with("options")
}

/// Refuses a URL with characters that must be encoded. Otherwise the first half of a password
/// would be read as the host. The store would connect to another server, and the other half
/// could be in its log.
fn check_encoding(url: &str, parts: &Parts<'_>) -> Result<(), Error> {
    let is_cut_at = |(key, value): &(&str, &str)| {
        key.contains('@') || parts.user.is_none() && value.contains('@') && !is_text(key)
    };
    let is_cut = parts.path.contains('@') || parts.parameters.iter().any(is_cut_at);
    match url.contains('#') || is_cut {
        true => Err(Error::new(
            ErrorKind::Setup,
            "the URL of the database has a character that must be percent-encoded: in a user, a \
             password or a name write `%` as %25, `#` as %23, `/` as %2F, `?` as %3F and `@` as %40",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions as _;

    use super::*;

    fn servers(url: &str) -> Vec<PgConnectOptions> {
        match Hosts::parse(url).expect("a URL") {
            Hosts::One(server) => vec![*server],
            Hosts::Several(servers) => servers,
        }
    }

    fn names(url: &str) -> Vec<(String, u16)> {
        let name = |options: &PgConnectOptions| {
            let socket = options.get_socket().map(|path| path.display().to_string());
            let host = socket.unwrap_or_else(|| options.get_host().to_owned());
            (host, options.get_port())
        };
        servers(url).iter().map(name).collect()
    }

    fn named(list: &[(&str, u16)]) -> Vec<(String, u16)> {
        list.iter()
            .map(|(host, port)| ((*host).to_owned(), *port))
            .collect()
    }

    #[test]
    fn one_server_is_taken_as_it_is() {
        let url = "postgres://u:p%40ss@db:5433/site?sslmode=disable";
        assert_eq!(names(url), named(&[("db", 5433)]));
        assert!(matches!(Hosts::parse(url), Ok(Hosts::One(_))));
    }

    #[test]
    fn several_servers_are_named_with_commas() {
        for attribute in [
            "",
            "?target_session_attrs=read-write",
            "?target_session_attrs=primary",
        ] {
            let url = format!("postgresql://u@one:5432,two:5433,[::1]:5434/site{attribute}");
            let expected = named(&[("one", 5432), ("two", 5433), ("::1", 5434)]);
            assert_eq!(names(&url), expected);
        }
    }

    #[test]
    fn servers_can_be_named_among_the_parameters() {
        let sockets = "postgres:///site?host=/run/a,/run/b&port=5432,5433&user=u";
        assert_eq!(names(sockets), named(&[("/run/a", 5432), ("/run/b", 5433)]));
        let hosts = "postgres:///site?host=one%2Ctwo&port=6432";
        assert_eq!(names(hosts), named(&[("one", 6432), ("two", 6432)]));
    }

    #[test]
    fn an_address_of_ipv6_has_no_brackets_for_sqlx() {
        let addressed = named(&[("::1", 5433)]);
        for url in [
            "postgres://u@[::1]:5433/site",
            "postgres://u@/site?host=[::1]&port=5433",
            "postgres://u@[::1]/site?port=5433",
        ] {
            assert_eq!(names(url), addressed, "{url}");
        }
    }

    #[test]
    fn a_password_that_needs_percent_encoding_is_refused_with_what_to_do() {
        for password in [
            "se#cret",
            "12#3",
            "se/cret",
            "12/3",
            "se?cret",
            "12?3",
            "12?a=3/",
            "/",
            "?",
            "p@se?cret",
        ] {
            let url = format!("postgres://u:{password}@db:5432/site?sslmode=disable");
            let error = Hosts::parse(&url).expect_err(&url);
            assert_eq!(error.kind(), ErrorKind::Setup, "{url}");
            assert!(
                error.to_string().contains("percent-encode"),
                "{url}: {error}"
            );
            assert!(!format!("{error:?}").contains("cret"), "{error:?}");
        }
    }

    #[test]
    fn an_encoded_password_and_an_at_sign_among_the_parameters_are_taken() {
        for url in [
            "postgres://u:pa%23%2F%3F%40ss@db/site",
            "postgres://u:p@ss@db/site",
            "postgres://db/site?user=me@tenant&application_name=a@b",
        ] {
            assert_eq!(names(url), named(&[("db", 5432)]), "{url}");
        }
    }

    #[test]
    fn a_user_without_a_host_is_the_user_at_the_default_host() {
        let url = "postgres://me:a+b%26c&d@/site?host=/run/a";
        for options in servers(url) {
            assert_eq!(options.get_username(), "me");
            assert_eq!(options.get_database(), Some("site"));
            let url = options.to_url_lossy();
            assert_eq!(url.password(), Some("a%2Bb%26c%26d"));
        }
        assert_eq!(names(url), named(&[("/run/a", 5432)]));
    }

    fn modes(url: &str) -> Vec<PgSslMode> {
        servers(url)
            .iter()
            .map(PgConnectOptions::get_ssl_mode)
            .collect()
    }

    #[test]
    fn channel_binding_is_never_less_than_encryption() {
        let required = modes("postgres://one,two/site?channel_binding=require");
        assert!(matches!(
            required[..],
            [PgSslMode::Require, PgSslMode::Require]
        ));
        let verified = modes("postgres://db/site?sslmode=verify-full&channel_binding=require");
        assert!(matches!(verified[..], [PgSslMode::VerifyFull]));
        let preferred = modes("postgres://db/site?channel_binding=prefer");
        assert!(matches!(preferred[..], [PgSslMode::Prefer]));
        let url = "postgres://db/site?sslmode=prefer&channel_binding=require";
        let error = Hosts::parse(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(error.to_string().contains("sslmode"), "{error}");
    }

    /// sqlx reads the modes in any case.
    #[test]
    fn the_case_of_a_mode_does_not_weaken_channel_binding() {
        for mode in ["DISABLE", "Allow", "pReFeR", "disabl%65"] {
            let url = format!("postgres://db/site?sslmode={mode}&channel_binding=require");
            let error = Hosts::parse(&url).expect_err(&url);
            assert_eq!(error.kind(), ErrorKind::Setup, "{url}");
        }
        for binding in ["REQUIRE", "Require"] {
            // libpq knows no such value; what it means is plain.
            let url = format!("postgres://db/site?channel_binding={binding}");
            assert!(matches!(modes(&url)[..], [PgSslMode::Require]), "{url}");
        }
    }

    #[test]
    fn a_stronger_mode_of_the_environment_is_kept() {
        let url = "postgres://db/site?channel_binding=require";
        let parts = Parts::of(url).expect("a URL");
        for (mode, expected) in [
            ("verify-full", None),
            ("VERIFY-FULL", None),
            ("Verify-CA", None),
            ("disable", Some("require")),
            ("", Some("require")),
            // sqlx takes it for `prefer`.
            ("verify-everything", Some("require")),
        ] {
            let sslmode = parts.sslmode_for_channel_binding(Some(mode));
            assert_eq!(sslmode, expected, "{mode}");
        }
    }

    /// sqlx would log it, as it does not know the parameter.
    #[test]
    fn a_password_of_a_key_is_refused_without_showing_it() {
        let url = "postgres://db/site?sslkey=a.key&sslpassword=secret";
        let error = Hosts::parse(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(error.to_string().contains("sslpassword"), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn all_else_is_the_same_for_each_server() {
        for options in servers("postgres://me:secret@one,two/site?application_name=web") {
            assert_eq!(options.get_username(), "me");
            assert_eq!(options.get_database(), Some("site"));
            assert_eq!(options.get_application_name(), Some("web"));
        }
    }

    #[test]
    fn what_is_no_place_for_sessions_is_refused() {
        for url in [
            "not a URL",
            "mysql://u@db/site",
            "postgres://one,two/site?port=1,2,3",
            "postgres://one,two/site?target_session_attrs=any",
            "postgres://db/site?target_session_attrs=standby",
            "postgres://db:port/site",
        ] {
            let error = Hosts::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Setup, "{url}");
        }
    }
}
