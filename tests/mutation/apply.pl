# apply.pl - edits a copy of the sources as a block of mutants.txt says; without a name: lists the names.
#   perl apply.pl mutants.txt [<name> <folder of the copy>]
use strict;
use warnings;

my ($list, $wanted, $root) = @ARGV;
open(my $in, '<', $list) or die "$list: $!\n";
local $/ = "";    # block by block
my $found = 0;
while (my $block = <$in>) {
    my @lines = grep { !/^#/ } split /\n/, $block;
    next unless @lines;
    my ($name) = shift(@lines) =~ /^([a-z0-9-]+): / or die "$list: a block without a name\n";
    if (!defined $wanted) { print "$name\n"; next; }
    next if $name ne $wanted;
    $found = 1;
    my $path;
    my %text;
    while (@lines) {
        if ($lines[0] !~ /^[-+]/) {
            $path = "$root/" . shift @lines;
            open(my $file, '<', $path) or die "$path: $!\n";
            local $/;
            $text{$path} = <$file> unless defined $text{$path};
            next;
        }
        my ($before, $after) = ("", "");
        $before .= substr(shift(@lines), 1) . "\n" while @lines && $lines[0] =~ /^-/;
        $after  .= substr(shift(@lines), 1) . "\n" while @lines && $lines[0] =~ /^\+/;
        chomp($before, $after);    # The last lines may be parts of lines.
        my $at = index($text{$path}, $before);
        die "$name: what is to be left out is not in $path:\n$before\n" if $at < 0;
        die "$name: it is in $path more than once:\n$before\n" if index($text{$path}, $before, $at + 1) >= 0;
        substr($text{$path}, $at, length $before) = $after;
    }
    for my $changed (keys %text) {
        open(my $file, '>', $changed) or die "$changed: $!\n";
        print {$file} $text{$changed};
    }
}
die "$wanted: there is no such block\n" if defined $wanted && !$found;
