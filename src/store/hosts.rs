//! The servers that a URL names.

use sqlx::postgres::PgConnectOptions;

use crate::{Error, ErrorKind};

#[derive(Debug)]
pub(super) enum Hosts {
    One(Box<PgConnectOptions>),
    /// Of which one takes writes; another one may do so tomorrow.
    Several(Vec<PgConnectOptions>),
}

/// The parts of a URL that may name several servers, as libpq reads them:
/// `postgres://user@one:5432,two:5433/database?target_session_attrs=read-write`,
/// or with `host` and `port` among the parameters.
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
    /// When the URL is not one of Postgres, or wants a server that takes no
    /// writes.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let Some(parts) = Parts::of(url) else {
            return Err(Error::not_a_url("it is not of the form scheme://…"));
        };
        // sqlx takes the URL of any server for one of Postgres.
        if !matches!(
            &*parts.scheme.to_ascii_lowercase(),
            "postgres" | "postgresql"
        ) {
            return Err(Error::not_a_url("its scheme is not postgres"));
        }
        let urls = parts.urls()?;
        let options = urls.iter().map(|url| url.parse().map_err(Error::not_a_url));
        let options: Vec<PgConnectOptions> = options.collect::<Result<_, _>>()?;
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
        let rest = rest.split('#').next().unwrap_or_default();
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

    /// The values of a parameter, where it is given.
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
        if let Some(user) = self.user {
            url += &format!("{user}@");
        }
        url += self.hosts.get(index).unwrap_or(&self.hosts[0]);
        url += self.path;
        let own = [("host", host), ("port", port)];
        let own = own
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let others = self
            .parameters
            .iter()
            .copied()
            .filter(|(key, _)| !matches!(*key, "host" | "port" | "target_session_attrs"));
        for (place, (key, value)) in others.chain(own).enumerate() {
            let separator = if place == 0 { '?' } else { '&' };
            url += &format!("{separator}{key}={value}");
        }
        url
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

#[cfg(test)]
mod tests {
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
            let expected = named(&[("one", 5432), ("two", 5433), ("[::1]", 5434)]);
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
