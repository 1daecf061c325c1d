#!/usr/bin/env bash
# Parses the files of deploy/nextflow with Groovy's parser, which the npm package npm-groovy-lint contains. The parser
# does not know Nextflow, so it finds only mistakes in Groovy's syntax. Needs npm and Java.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -d build/groovy/node_modules/npm-groovy-lint ] ||
    npm install --silent --no-fund --no-audit --no-save --prefix build/groovy npm-groovy-lint@18.0.0
cat > build/groovy/parse.groovy <<'END'
import org.codehaus.groovy.control.*
args.each { path ->
    def unit = new CompilationUnit()
    unit.addSource(path, new File(path).text) // Groovy takes a name that ends with .config, too
    unit.compile(Phases.CONVERSION)
    println "$path: parsed"
}
END
find deploy/nextflow -name '*.nf' -o -name '*.config' |
    xargs java -cp "build/groovy/node_modules/npm-groovy-lint/lib/java/groovy/lib/*" groovy.ui.GroovyMain build/groovy/parse.groovy
