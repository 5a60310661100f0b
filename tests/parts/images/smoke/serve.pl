# Answers every HTTP request on port 8080 with the contents of the file it is given.
use strict;
use warnings;
use IO::Socket qw(SO_RCVTIMEO);
use IO::Socket::INET;

my $file = shift;
$SIG{TERM} = sub { exit 0 };
$SIG{PIPE} = 'IGNORE';    # a client that has gone away, as a probe does, must not end the server
my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 64, ReuseAddr => 1) or die "port 8080: $!";
while (my $client = $server->accept) {
    # One that sends nothing must not keep the next ones waiting.
    $client->sockopt(SO_RCVTIMEO, pack('l!l!', 5, 0));
    while (my $line = <$client>) {
        last if $line =~ /^\r?\n$/;
    }
    open(my $answer, '<', $file) or die "$file: $!";
    print $client "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n", <$answer>;
    close $client;
}
