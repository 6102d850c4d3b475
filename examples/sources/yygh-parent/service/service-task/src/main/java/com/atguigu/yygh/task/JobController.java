package com.atguigu.yygh.task;

import com.atguigu.yygh.common.YyghException;
import java.util.List;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RestController;

@RestController
@RequestMapping("/api/task")
class JobController {

    private final VisitReminder reminder;

    JobController(VisitReminder reminder) {
        this.reminder = reminder;
    }

    record Job(String name, String title, String cron, List<VisitReminder.Run> runs) {
    }

    @GetMapping("/jobs")
    List<Job> jobs() {
        return List.of(new Job(VisitReminder.NAME, "就诊提醒", VisitReminder.CRON, reminder.runs()));
    }

    @PostMapping("/jobs/{name}/runs")
    VisitReminder.Run run(@PathVariable String name) {
        if (!name.equals(VisitReminder.NAME)) {
            throw YyghException.notFound("任务", name);
        }
        return reminder.run();
    }
}
