//! A server that encrypts, with certificates that the tests make.

use std::{
    error::Error as StdError,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use axum_pg_session::{Error, ErrorKind, PgSessionStore};
use dev_postgres::Server;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sqlx::PgPool;
use tempfile::TempDir;

/// The store waits as long for a server that may come back.
pub(crate) const WHILE_IT_MAY_HEAL: Duration = Duration::from_secs(5);

/// Whose certificates are trusted, or not.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub(crate) fn certify(&self, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

pub(crate) fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A server that refuses unencrypted connections over TCP, known as `localhost` and `::1`, and
/// what its clients need. All tests share it.
pub(crate) struct Encrypting {
    pub(crate) server: Server,
    pub(crate) authority: Authority,
    folder: TempDir,
}

pub(crate) fn encrypting() -> &'static Encrypting {
    static SHARED: OnceLock<Encrypting> = OnceLock::new();
    SHARED.get_or_init(|| Encrypting::with(&named("server", &["localhost", "::1"])))
}

impl Encrypting {
    pub(crate) fn with(params: &CertificateParams) -> Self {
        let authority = Authority::new("an authority");
        let certified = authority.certify(params);
        let folder = tempfile::tempdir().expect("a folder");
        let access = "local all all trust\n\
                      hostssl all alice all cert\n\
                      hostssl all bob all scram-sha-256\n\
                      hostssl all postgres all trust\n";
        let server = Server::builder()
            .tcp("*")
            .tls(&certified.certificate, &certified.key)
            .file("authority.crt", &authority.0.pem())
            .setting("ssl_ca_file", "authority.crt")
            .file("pg_hba.conf", access)
            .start()
            .expect("a server with TLS");
        let encrypting = Self {
            server,
            authority,
            folder,
        };
        encrypting.write("authority.crt", &encrypting.authority.0.pem());
        for (owner, authority) in [
            ("alice", &encrypting.authority),
            ("impostor", &Authority::new("another authority")),
        ] {
            let certified = authority.certify(&named("alice", &[]));
            encrypting.write(&format!("{owner}.crt"), &certified.certificate);
            encrypting.write(&format!("{owner}.key"), &certified.key);
        }
        encrypting.write("stranger.crt", &Authority::new("a stranger").0.pem());
        encrypting
    }

    pub(crate) fn write(&self, name: &str, contents: &str) {
        std::fs::write(self.file(name), contents).expect("a file");
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port().expect("it listens on TCP")
    }

    /// With names of files after `$`.
    pub(crate) fn url(&self, login: &str, host: &str, parameters: &str) -> String {
        let folder = format!("{}/", self.folder.path().display());
        let parameters = parameters.replace('$', &folder);
        let port = self.port();
        format!("postgres://{login}@{host}:{port}/postgres?{parameters}")
    }
}

pub(crate) fn is_set_up_and_says(error: &Error, words: &str) {
    assert_eq!(error.kind(), ErrorKind::Setup, "{error:?}");
    assert_eq!(error.retry_after(), None);
    assert!(error.to_string().contains(words), "{error:?}");
    assert!(error.source().is_some());
}

/// By a URL and by a pool of the application's, each at once.
pub(crate) async fn is_refused(url: &str, words: &str) {
    let began = Instant::now();
    let outcome = PgSessionStore::connect(url).await;
    is_set_up_and_says(&outcome.map(drop).expect_err(url), words);
    let pool = PgPool::connect_lazy(url).expect("a URL");
    let outcome = PgSessionStore::new(pool).check().await;
    is_set_up_and_says(&outcome.map(drop).expect_err(url), words);
    let took = began.elapsed();
    assert!(took < WHILE_IT_MAY_HEAL, "{took:?}");
}
