package com.atguigu.yygh.hosp.client;

import com.atguigu.yygh.model.hosp.Department;
import com.atguigu.yygh.model.hosp.Hospital;
import com.atguigu.yygh.model.hosp.Schedule;
import java.util.List;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.service.annotation.DeleteExchange;
import org.springframework.web.service.annotation.GetExchange;
import org.springframework.web.service.annotation.HttpExchange;
import org.springframework.web.service.annotation.PostExchange;

/** Hospitals, their departments and their schedules. */
@HttpExchange("/api/hosp")
public interface HospApi {

    @GetExchange("/hospitals")
    List<Hospital> hospitals(@RequestParam(required = false) String level);

    @GetExchange("/hospitals/{hoscode}")
    Hospital hospital(@PathVariable String hoscode);

    @GetExchange("/hospitals/{hoscode}/departments")
    List<Department> departments(@PathVariable String hoscode);

    @GetExchange("/departments")
    List<Department> allDepartments();

    @GetExchange("/hospitals/{hoscode}/departments/{depcode}/schedules")
    List<Schedule> schedules(@PathVariable String hoscode, @PathVariable String depcode);

    @PostExchange("/schedules")
    Schedule publish(@RequestBody Schedule schedule);

    @GetExchange("/schedules/{id}")
    Schedule schedule(@PathVariable String id);

    /** Takes one number. */
    @PostExchange("/schedules/{id}/numbers")
    Schedule take(@PathVariable String id);

    /** Gives one number back. */
    @DeleteExchange("/schedules/{id}/numbers")
    Schedule giveBack(@PathVariable String id);
}
