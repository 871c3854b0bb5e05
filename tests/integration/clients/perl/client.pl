# `perl client.pl FEATURE`: DBD::mysql; see the README of tests/integration/clients.
use strict;
use warnings;
use utf8;

use DBD::mysql;
use DBI;
use JSON::PP;

my $feature = $ARGV[0];
my $sql = $ENV{ODP_SQL};
my $json = JSON::PP->new->utf8->allow_nonref;
$| = 1;

sub tell_test { print $json->encode($_[0]), "\n" }

sub open_connection {
    my ($more) = @_;
    return DBI->connect(
        "DBI:mysql:database=$ENV{ODP_DATABASE};host=$ENV{ODP_HOST};port=$ENV{ODP_PORT}$more",
        $ENV{ODP_USER}, $ENV{ODP_PASSWORD}, { RaiseError => 1, PrintError => 0, mysql_enable_utf8mb4 => 1 });
}

# Tell the connection's id, and wait until the test has done something about it.
sub pause {
    my ($id) = $_[0]->selectrow_array("SELECT CONNECTION_ID()");
    tell_test({ id => "$id" });
    readline(STDIN);
}

sub error_of {
    my ($handle) = @_;
    return { code => $handle->err, sqlstate => $handle->state, message => $handle->errstr };
}

sub rows_of {
    my ($statement) = @_;
    my @names = @{ $statement->{NAME} };
    my @rows;
    while (my @row = $statement->fetchrow_array) {
        for my $i (0 .. $#row) {
            next unless defined $row[$i];
            $row[$i] = $names[$i] eq "raw" ? uc(unpack("H*", $row[$i])) : "$row[$i]";
        }
        push @rows, \@row;
    }
    return \@rows;
}

sub ask {
    my ($handle, $text) = @_;
    my $statement = $handle->prepare($text);
    $statement->execute;
    return rows_of($statement);
}

sub sizes_of {
    my ($handle) = @_;
    my $statement = $handle->prepare($sql, { mysql_use_result => 1 });
    $statement->execute;
    my ($count, $length) = (0, 0);
    while (my $row = $statement->fetchrow_arrayref) {
        $count += 1;
        $length += length $row->[1];
    }
    return [[$count, $length]];
}

sub failures_of {
    my ($handle) = @_;
    my ($rows, @errors) = ([]);
    for my $text (split /\n/, $sql) {
        push @errors, eval { $rows = ask($handle, $text); 1 } ? undef : error_of($handle);
    }
    return { errors => \@errors, rows => $rows };
}

sub prepared {
    my ($handle) = @_;
    my $statement = $handle->prepare($sql, { mysql_server_prepare => 1 });
    my @rows;
    for my $parameters (["Grüße ☃", 1], [undef, 2]) {
        $statement->bind_param(1, $parameters->[0]);
        $statement->bind_param(2, $parameters->[1], DBI::SQL_INTEGER);
        $statement->execute;
        push @rows, @{ rows_of($statement) };
    }
    return \@rows;
}

sub reconnect {
    my ($handle) = @_;
    pause($handle);
    my $error;
    eval { ask($handle, $sql); 1 } or $error = error_of($handle);
    $handle->{mysql_auto_reconnect} = 1;
    $handle->ping;
    return { error => $error, rows => ask($handle, $sql) };
}

sub run {
    return { version => $DBD::mysql::VERSION } if $feature eq "version";
    my %more = (
        # Optional, because DBD::mysql 4 cannot enforce TLS with libmariadb. It checks the certificate all the same.
        tls => ";mysql_ssl=1;mysql_ssl_optional=1;mysql_ssl_ca_file=$ENV{ODP_CA};mysql_ssl_verify_server_cert=1",
        compression => ";mysql_compression=1",
    );
    my $handle = open_connection($more{$feature} // "");
    pause($handle) if $more{$feature};
    return failures_of($handle) if $feature eq "error";
    return reconnect($handle) if $feature eq "reconnect_after_kill";
    return { rows => sizes_of($handle) } if $feature eq "large_result" || $feature eq "compression";
    return { rows => prepared($handle) } if $feature eq "prepare";
    return { rows => ask($handle, $sql) };
}

my $found = eval { run() };
tell_test($found // { error => { code => $DBI::err, sqlstate => $DBI::state, message => $DBI::errstr // "$@" } });
