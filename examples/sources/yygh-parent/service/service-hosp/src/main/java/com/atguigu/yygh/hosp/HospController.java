package com.atguigu.yygh.hosp;

import com.atguigu.yygh.cmn.client.DictApi;
import com.atguigu.yygh.hosp.client.HospApi;
import com.atguigu.yygh.model.cmn.Dict;
import com.atguigu.yygh.model.hosp.Department;
import com.atguigu.yygh.model.hosp.Hospital;
import com.atguigu.yygh.model.hosp.Schedule;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.springframework.web.bind.annotation.RestController;

@RestController
class HospController implements HospApi {

    private final Hospitals hospitals;
    private final Schedules schedules;
    private final DictApi dictionary;

    HospController(Hospitals hospitals, Schedules schedules, DictApi dictionary) {
        this.hospitals = hospitals;
        this.schedules = schedules;
        this.dictionary = dictionary;
    }

    @Override
    public List<Hospital> hospitals(String level) {
        Map<String, String> levels =
                dictionary.entries("HosLevel").stream().collect(Collectors.toMap(Dict::value, Dict::name));
        return hospitals.all().stream()
                .filter(hospital -> level == null || level.equals(hospital.level()))
                .map(hospital -> hospital.withLevelName(levels.get(hospital.level())))
                .toList();
    }

    @Override
    public Hospital hospital(String hoscode) {
        Hospital hospital = hospitals.get(hoscode);
        return hospital.withLevelName(dictionary.entry("HosLevel", hospital.level()).name());
    }

    @Override
    public List<Department> departments(String hoscode) {
        return hospitals.departmentsOf(hoscode);
    }

    @Override
    public List<Department> allDepartments() {
        return hospitals.all().stream()
                .flatMap(hospital -> hospitals.departmentsOf(hospital.hoscode()).stream())
                .toList();
    }

    @Override
    public List<Schedule> schedules(String hoscode, String depcode) {
        return schedules.of(hospitals.department(hoscode, depcode));
    }

    @Override
    public Schedule publish(Schedule schedule) {
        hospitals.department(schedule.hoscode(), schedule.depcode());
        return schedules.publish(schedule);
    }

    @Override
    public Schedule schedule(String id) {
        return schedules.get(id);
    }

    @Override
    public Schedule take(String id) {
        return schedules.take(id);
    }

    @Override
    public Schedule giveBack(String id) {
        return schedules.giveBack(id);
    }
}
