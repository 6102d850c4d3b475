// A step of a shared library: `pipeRun file: 'backend.yaml'` runs a pipeline and shows its stages as stages of the build.
// One `sh` step does all the work, whatever the file holds; the stages are read from the run when it has ended.

import groovy.json.JsonSlurperClassic

def call(Map options = [:]) {
    String file = options.file ?: 'pipeline.yaml'
    int code = 0
    withEnv(["PIPE_FILE=${file}"]) {  // a name is never part of a script
        code = sh(label: "pipe run ${file}", returnStatus: true, script: 'pipe run "$PIPE_FILE"')
    }
    for (String run in runsOfThisBuild()) {
        showStages(run)
    }
    if (code) {
        error("pipe run ${file} ended with exit code ${code}")
    }
}

private List<String> runsOfThisBuild() {
    List<String> names = []
    for (String line in sh(label: 'which runs', returnStdout: true, script: 'pipe runs --json').readLines()) {
        Map found = (Map) new JsonSlurperClassic().parseText(line)
        if ("${found.run}".endsWith("#${env.BUILD_NUMBER}")) {
            names << "${found.run}".toString()
        }
    }
    return names.sort()
}

private void showStages(String run) {
    Map found = [:]
    withEnv(["PIPE_RUN=${run}"]) {
        String text = sh(label: "pipe show ${run}", returnStdout: true, script: 'pipe show --json "$PIPE_RUN"')
        found = (Map) new JsonSlurperClassic().parseText(text)
    }
    for (String name in found.order) {
        Map leaf = (Map) found.leaves[name]
        String outcome = leaf.outcome ?: found.status
        stage("${run.tokenize('#')[0]} ${name}") {
            String why = leaf.cause ? ": ${leaf.cause.message}" : ''
            String said = "${outcome} after ${leaf.seconds} s${why}"
            if (outcome in ['failed', 'errored', 'timed-out', 'cancelled']) {
                catchError(buildResult: null, stageResult: leaf.allowed ? 'UNSTABLE' : 'FAILURE') {
                    error(said)
                }
            } else {
                echo(said)
            }
        }
    }
}
