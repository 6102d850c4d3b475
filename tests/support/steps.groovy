// Jenkins' steps as far as the examples use them: `sh` really runs, the others print what Jenkins would show.
// Arguments: the script, its method's options as JSON.

import groovy.json.JsonSlurperClassic
import org.codehaus.groovy.control.CompilerConfiguration

abstract class Steps extends Script {
    static List<String> more = []

    def withEnv(List<String> variables, Closure body) {
        more.addAll(variables)
        try { body() } finally { more = more.dropRight(variables.size()) }
    }

    def sh(Map options) {
        def builder = new ProcessBuilder('sh', '-xe', '-c', options.script.toString())
        more.each { String word -> builder.environment().put(word.split('=', 2)[0], word.split('=', 2)[1]) }
        def process = builder.redirectError(ProcessBuilder.Redirect.INHERIT).start()
        String text = process.inputStream.getText('UTF-8')
        int code = process.waitFor()
        if (options.returnStdout) { if (code) { error("script returned exit code ${code}") }; return text }
        print text
        if (options.returnStatus) { return code }
        if (code) { error("script returned exit code ${code}") }
    }

    def stage(String name, Closure body) {
        println "STAGE ${name}"
        body()
    }

    def catchError(Map options, Closure body) {
        try { body() } catch (Exception reason) { println "${options.stageResult} ${reason.message}" }
    }

    def echo(String text) { println text }

    def error(String text) { throw new Exception(text) }
}

def configuration = new CompilerConfiguration(scriptBaseClass: Steps.name)
def binding = new Binding([env: System.getenv()])
def script = new GroovyShell(Steps.classLoader, binding, configuration).parse(new File(args[0]))
try {
    script.call((Map) new JsonSlurperClassic().parseText(args[1]))
} catch (Exception reason) {
    println "BUILD FAILED ${reason.message}"
    System.exit(1)
}
