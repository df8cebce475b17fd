//! Logs in on a new stream: by trust, SCRAM or md5, and by a password in clear if nobody can listen.
//!
//! # Failure
//! `Authentication` if another attempt would fail as well. With `channel_binding=require`, only
//! SCRAM-SHA-256-PLUS is accepted, so nobody between client and server can force a weaker method.

use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    authentication::{md5_hash, sasl},
    message::{
        backend::{AuthenticationSaslBody, Message},
        frontend,
    },
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    connect_info::ConnectInfo,
    connector::LoginTarget,
    require_auth::{AUTH_REMEDY, Method},
    session::Session,
    settings::ChannelBinding,
    stream::Stream,
};
use crate::{Error, ErrorKind, Result, error::NO_PASSWORD};

/// Purpose of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Logical replication, and statements before it starts.
    Replication,
    /// Statements alone.
    Statements,
}

/// Sends the start-up message and authenticates.
pub(super) async fn log_in(
    stream: Stream,
    server: &LoginTarget<'_>,
    info: &ConnectInfo,
    purpose: Purpose,
) -> Result<Session> {
    let host = server.host;
    let mut session = Session::new(stream, host.to_string());
    let mut login = Login {
        message: format!("cannot log in to PostgreSQL at {host} as {}", info.user),
        password: server.password.clone(),
        info,
        session: &mut session,
    };
    login.startup(purpose).await?;
    login.authenticate().await?;
    while !matches!(login.receive().await?, Message::ReadyForQuery(_)) {}
    Ok(session)
}

/// Returns the method that the server's first message asks for.
fn method(request: &Message) -> Option<Method> {
    match request {
        Message::AuthenticationOk => Some(Method::None),
        Message::AuthenticationCleartextPassword => Some(Method::Password),
        Message::AuthenticationMd5Password(_) => Some(Method::Md5),
        Message::AuthenticationSasl(_) => Some(Method::Scram),
        Message::AuthenticationGss | Message::AuthenticationKerberosV5 => Some(Method::Gss),
        Message::AuthenticationSspi => Some(Method::Sspi),
        _ => None,
    }
}

/// A login in progress.
struct Login<'a> {
    message: String,
    password: Option<SecretString>,
    info: &'a ConnectInfo,
    session: &'a mut Session,
}

impl Login<'_> {
    async fn startup(&mut self, purpose: Purpose) -> Result<()> {
        let info = self.info;
        let mut parameters = vec![
            ("user", info.user.as_str()),
            ("database", &info.dbname),
            ("client_encoding", "UTF8"),
            ("application_name", info.application_name()),
        ];
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        if let Some(options) = &info.options {
            parameters.push(("options", options));
        }
        self.session.send(|buffer| frontend::startup_message(parameters, buffer)).await
    }

    async fn receive(&mut self) -> Result<Message> {
        self.session.receive(&self.message).await
    }

    async fn authenticate(&mut self) -> Result<()> {
        let request = self.receive().await?;
        let refusal = method(&request).and_then(|method| self.info.require_auth.refusal(method));
        if let Some(refusal) = refusal {
            return Err(self.refused(&refusal).with_remedy(AUTH_REMEDY));
        }
        if self.info.channel_binding == ChannelBinding::Require
            && !matches!(request, Message::AuthenticationSasl(_))
        {
            return Err(self.no_channel_binding());
        }
        match request {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                if !self.session.stream.may_carry_a_password() {
                    return Err(self
                        .refused("the server asks for the password in clear, over a connection that is not encrypted")
                        .with_remedy("use sslmode=verify-full, or scram-sha-256 in pg_hba.conf"));
                }
                let password = self.password()?;
                self.session
                    .send(|buffer| {
                        frontend::password_message(password.expose_secret().as_bytes(), buffer)
                    })
                    .await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = self.password()?;
                let user = self.info.user.as_bytes();
                let answer = md5_hash(user, password.expose_secret().as_bytes(), body.salt());
                self.session
                    .send(|buffer| frontend::password_message(answer.as_bytes(), buffer))
                    .await?;
            }
            Message::AuthenticationSasl(body) => self.scram(&body).await?,
            Message::AuthenticationGss
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential
            | Message::AuthenticationSspi => {
                return Err(self
                    .refused("the server asks for a method that is not supported")
                    .with_remedy("use scram-sha-256 in pg_hba.conf"));
            }
            _ => return Err(self.out_of_turn()),
        }
        match self.receive().await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(self.out_of_turn()),
        }
    }

    async fn scram(&mut self, body: &AuthenticationSaslBody) -> Result<()> {
        let password = self.password()?;
        let (mechanism, binding) = self.mechanism(body)?;
        let mut scram = sasl::ScramSha256::new(password.expose_secret().as_bytes(), binding);
        self.session
            .send(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))
            .await?;
        let Message::AuthenticationSaslContinue(body) = self.receive().await? else {
            return Err(self.out_of_turn());
        };
        let refused = "the SCRAM exchange fails";
        scram.update(body.data()).map_err(|error| self.refused(refused).caused_by(error))?;
        self.session.send(|buffer| frontend::sasl_response(scram.message(), buffer)).await?;
        let Message::AuthenticationSaslFinal(body) = self.receive().await? else {
            return Err(self.out_of_turn());
        };
        // Checks the server's proof that it knows the password, too.
        let refused = "the server does not prove that it knows the password";
        scram.finish(body.data()).map_err(|error| self.refused(refused).caused_by(error))
    }

    /// Chooses the strongest mechanism that the server offers.
    fn mechanism(
        &self,
        body: &AuthenticationSaslBody,
    ) -> Result<(&'static str, sasl::ChannelBinding)> {
        let offered: Vec<&str> =
            body.mechanisms().collect().map_err(|error| self.out_of_turn().caused_by(error))?;
        let wanted = self.info.channel_binding;
        let binding = self.session.stream.tls().and_then(|tls| tls.channel_binding.clone());
        let binding = binding.filter(|_| wanted != ChannelBinding::Disable);
        match binding {
            Some(binding) if offered.contains(&sasl::SCRAM_SHA_256_PLUS) => {
                Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(binding)))
            }
            _ if wanted == ChannelBinding::Require => Err(self.no_channel_binding()),
            _ if !offered.contains(&sasl::SCRAM_SHA_256) => {
                Err(self.refused("the server offers no SCRAM mechanism that is supported"))
            }
            // Says that we support channel binding: the server notices if its offer was tampered with.
            Some(_) => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
            None => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        }
    }

    fn password(&self) -> Result<SecretString> {
        self.password.clone().ok_or_else(|| {
            self.refused("the server asks for a password, and there is none")
                .with_remedy(NO_PASSWORD)
        })
    }

    fn no_channel_binding(&self) -> Error {
        self.refused(
            "channel_binding=require, and the server does not bind the login to a TLS connection",
        )
        .with_remedy("use TLS and scram-sha-256, or channel_binding=prefer")
    }

    fn refused(&self, reason: &str) -> Error {
        Error::new(ErrorKind::Authentication, format!("{}: {reason}", self.message))
    }

    fn out_of_turn(&self) -> Error {
        let message = format!("{}: the server answers out of turn", self.message);
        Error::new(ErrorKind::Protocol, message)
    }
}
