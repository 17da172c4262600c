# Publishing the databases that a test script opens, and comparing their replicas.
#
# `sqlite3` is wrapped: a connection is watched by Tcl's traces, so that the script meets SQLite's own command. After its first
# statement that leaves a table in the main database this is switched to WAL, and published, each database to a folder of its own. When a connection
# goes, everything is flushed, and once it has gone a fresh replica is compared with the file.
# Nothing of this may raise an error in the script.

rename sqlite3 real_sqlite3
# A script may make a command of this name its own.
rename glob real_glob
proc glob {args} { uplevel 1 [list real_glob {*}$args] }
set pending {}
set replicas 0
array set depth {}
# Of each published file its channel, of each other one why logos_publish refused it the last time; of each path how often a file
# there was published: one that is made anew twenty thousand times is so the first 200 times only.
array set channels {}
array set refused {}
array set times {}

if {$mode eq "published"} {
    real_sqlite3 loader :memory:
    loader enable_load_extension 1
    loader eval {SELECT load_extension($extension)}
    loader close
}

proc sqlite3 {args} {
    settle
    set result [uplevel 1 [list real_sqlite3 {*}$args]]
    lassign $args db path
    if {![string match -* $db] && $path ni {"" :memory:} && ![string match file:* $path] && [lsearch -glob $args -vfs*] < 0} {
        if {[dict exists [list {*}[lrange $args 2 end]] -readonly] && [dict get [lrange $args 2 end] -readonly]} { return $result }
        # The file that it is a link to: `file normalize` follows those of the folders only.
        set path [file dirname [file normalize [file join $path of]]]
        set ::depth($db) 0
        trace add execution ::$db {enter leave} [list watch $db $path]
        trace add command ::$db delete [list goes $path]
    }
    return $result
}

proc watch {db path call args} {
    if {[lindex $args end] eq "enter"} {
        incr ::depth($db)
    } elseif {[incr ::depth($db) -1] <= 0 && ![info exists ::channels($path)]} {
        catch {publish $db $path}
    }
}

# Refused in a transaction: then the next statement is as good.
proc publish {db path} {
    if {![file exists $path] || [file size $path] == 0} return
    set code [catch {
        if {[$db one {SELECT count(*) FROM main.sqlite_master WHERE type = 'table'}] == 0} return
        if {[$db one {PRAGMA main.journal_mode = WAL}] ne "wal"} return
    }]
    if {$code} return
    if {$::mode eq "plain" || [incr ::times($path)] > 200} { set ::channels($path) plain; return }
    set folder $::home/channel[incr ::replicas]
    set refused [catch {$db one {SELECT logos_publish('dir:' || $folder)}} answer]
    if {$refused && [string match *sidecar*missing* $answer]} {
        # A copy of a database that was published here and deleted since.
        catch {$db one {SELECT logos_remove()}}
        set refused [catch {$db one {SELECT logos_publish('dir:' || $folder)}} answer]
    }
    if {$refused} {
        set ::refused($path) $answer
    } else {
        set ::channels($path) $answer
    }
}

# The connection is still there: what it alone knows (commits not yet seen, doubts) goes out now.
proc goes {path args} {
    if {$::mode ne "published"} return
    if {![info exists ::channels($path)]} {
        if {[info exists ::refused($path)]} { record "publish [file tail $path]" "error: $::refused($path)" }
        return
    }
    if {$::channels($path) eq "plain"} return
    catch {
        real_sqlite3 logos_flusher $path -create 0
        logos_flusher timeout 5000
        logos_flusher eval {SELECT logos_flush(10)}
    }
    catch {logos_flusher close}
    if {$path ni $::pending} { lappend ::pending $path }
}

# Databases whose connection has gone since: each is compared with a replica made from its channel alone.
proc settle {} {
    set paths $::pending
    set ::pending {}
    foreach path $paths {
        if {![file exists $path] || [file size $path] == 0} continue
        if {[catch {differences $path $::channels($path)} found]} { set found "error: $found" }
        record "replica [file tail $path]" [expr {$found eq "" ? "equal" : $found}]
    }
}

# Only if one of these files is such a database, its -wal, or what is ours beside it: a script that copies files copies them as SQLite left them.
proc settle_before_change {paths} {
    foreach path $paths {
        if {[regsub -- {-(wal|journal|shm|logos|logos-wal|logos-shm)$} [file normalize $path] {}] in $::pending} {
            settle
            return
        }
    }
}

# A deleted database takes its sidecar and its channel with it.
proc forget {path} {
    set path [file normalize $path]
    unset -nocomplain ::refused($path) ::channels($path)
    if {$::mode eq "published"} { ::tcl::file::delete -force {*}[real_glob -nocomplain $path-logos*] }
}

proc differences {path url} {
    real_sqlite3 logos_primary $path -create 0
    set copy $::home/copy
    ::tcl::file::delete -force {*}[real_glob -nocomplain $copy*]
    real_sqlite3 logos_copy $copy
    try {
        logos_primary timeout 10000
        logos_primary eval {SELECT logos_publish($url)}
        logos_primary eval {SELECT logos_flush(20)}
        logos_copy eval {SELECT count(*) FROM attach_replica($url)}
        set said [logos_primary eval {SELECT state, error, warnings FROM logos_status WHERE channel = $url}]
        return [unlike [contents logos_primary] [contents logos_copy] $said]
    } finally {
        logos_copy close
        logos_primary close
    }
}

# What is not equal; what belongs to something that the status names as left out is only named.
proc unlike {primary replica said} {
    set found {}
    foreach what [lsort -unique [concat [dict keys $primary] [dict keys $replica]]] {
        set here [expr {[dict exists $primary $what] ? [dict get $primary $what] : "nothing"}]
        set there [expr {[dict exists $replica $what] ? [dict get $replica $what] : "nothing"}]
        if {$here eq $there} continue
        set named 0
        foreach name [lrange $what 1 2] {
            if {[string first " $name is " $said] >= 0 || [string first "\"$name\"" $said] >= 0} { set named 1 }
        }
        if {$named} {
            set left([lindex $what 1]) 1
        } else {
            lappend found "$what: [string range $here 0 300] / [string range $there 0 300]"
        }
    }
    if {$found ne ""} { return "[join $found {; }] -- $said" }
    if {[array exists left]} { return "left out by name: [lsort [array names left]] -- $said" }
}

# What a reader sees: objects by their text, rows of each table in any order, the file's settings.
proc contents {db} {
    set seen {}
    foreach pragma {user_version application_id} { dict set seen [list pragma $pragma] [$db one "PRAGMA $pragma"] }
    # Not compared as objects: what modules make themselves, statistics of ANALYZE (which stay local), and sqlite_sequence, which
    # a file keeps, empty, after its last AUTOINCREMENT table was dropped.
    $db eval {SELECT type, name, tbl_name, sql FROM sqlite_master
        WHERE name NOT LIKE '\_logos\_%' ESCAPE '\' AND tbl_name NOT LIKE '\_logos\_%' ESCAPE '\'
        AND tbl_name NOT LIKE 'sqlite\_stat_' ESCAPE '\' AND name <> 'sqlite_sequence'
        AND tbl_name NOT IN (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow')} {
        dict set seen [list $type $name $tbl_name] $sql
    }
    $db eval {SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')
        AND name <> 'sqlite_schema' AND name NOT LIKE 'sqlite\_stat_' ESCAPE '\' AND name NOT LIKE '\_logos\_%' ESCAPE '\'} {
        set rows [rows $db $name]
        if {$name ne "sqlite_sequence" || ![string match "0 rows*" $rows]} { dict set seen [list rows $name] $rows }
    }
    return $seen
}

proc rows {db table} {
    set quoted \"[string map {\" \"\"} $table]\"
    set columns {}
    set found {}
    # A virtual table that is not what its text says cannot be read on either side.
    if {[catch {
        # Not the hidden columns of a virtual table, which are not content.
        $db eval {SELECT name FROM pragma_table_xinfo($table) WHERE hidden <> 1} {
            set column $quoted.\"[string map {\" \"\"} $name]\"
            lappend columns "typeof($column), CASE typeof($column) WHEN 'blob' THEN hex($column) WHEN 'text' THEN $column ELSE quote($column) END"
        }
        set cells [$db eval "SELECT [join $columns {, }] FROM $quoted NOT INDEXED"]
    } error]} { return "error: $error" }
    set width [expr {2 * [llength $columns]}]
    for {set i 0} {$i < [llength $cells]} {incr i $width} { lappend found [lrange $cells $i [expr {$i + $width - 1}]] }
    set found [lsort $found]
    return "[llength $found] rows, [zlib crc32 [encoding convertto utf-8 $found]]: [string range $found 0 300]"
}
